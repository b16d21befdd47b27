//! Frames of videos, extracted with ffmpeg beforehand.

use std::path::Path;

use crate::error::{DataError, Result, RowOrigin};
use crate::rows::{VideoSource, frames_in};

/// Frames per second in the folders of tasks, as extracted by the command in `docs/tasks.md`.
const FPS: f64 = 2.0;

/// Returns the video in the folder named like the video file without its extension, with at most
/// `at_most` evenly spaced frames selected.
///
/// # Errors
/// [`DataError::NoFrames`] if the folder does not exist or is empty; [`DataError::Io`] if it cannot
/// be listed.
pub(super) fn video_source(
    origin: &RowOrigin,
    video: &Path,
    at_most: usize,
) -> Result<VideoSource> {
    let folder = video.with_extension("");
    let files = frames_in(&folder)?;
    if files.is_empty() {
        return Err(DataError::NoFrames {
            origin: origin.clone(),
            folder,
            video: video.to_owned(),
        });
    }
    let places = evenly_spaced(files.len(), at_most);
    Ok(VideoSource::new(
        origin.clone(),
        folder,
        (files, FPS),
        places,
    ))
}

/// Returns `torch.linspace(0, n - 1, count).round()`, which is how Qwen's own code selects frames;
/// all of them if there are no more than `at_most`.
fn evenly_spaced(n: usize, at_most: usize) -> Vec<usize> {
    let count = n.min(at_most);
    if count <= 1 {
        return (0..count).collect();
    }
    let step = (n - 1) as f64 / (count - 1) as f64;
    (0..count)
        .map(|idx| (idx as f64 * step).round_ties_even() as usize)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn frames_cover_the_video() {
        assert_eq!(evenly_spaced(3, 8), [0, 1, 2]);
        assert_eq!(evenly_spaced(8, 8), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(evenly_spaced(15, 8), [0, 2, 4, 6, 8, 10, 12, 14]);
        assert_eq!(evenly_spaced(100, 8), [0, 14, 28, 42, 57, 71, 85, 99]);
        assert_eq!(evenly_spaced(5, 1), [0]);
    }

    #[test]
    fn unpadded_numbers_are_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("clip");
        std::fs::create_dir(&folder).unwrap();
        for name in ["10.png", "9.png", "1.JPG", "notes.txt"] {
            std::fs::write(folder.join(name), "").unwrap();
        }
        let origin = RowOrigin {
            file: PathBuf::from("x.json"),
            row: 1,
        };
        let video = video_source(&origin, &dir.path().join("clip.mp4"), 8).unwrap();
        let names = video.frames().map(|frame| {
            let path = frame.file_path().unwrap();
            path.file_name().unwrap().to_owned()
        });
        assert_eq!(Vec::from_iter(names), ["1.JPG", "9.png", "10.png"]);
        let error = video_source(&origin, &dir.path().join("other.mp4"), 8).unwrap_err();
        assert!(error.to_string().contains("ffmpeg -i"), "{error}");
    }
}
