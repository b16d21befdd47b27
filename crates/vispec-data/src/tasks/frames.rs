//! Frames of videos, which somebody made with ffmpeg beforehand.

use std::path::{Path, PathBuf};

use crate::error::{DataError, Result, RowOrigin};

/// Extensions of image files that are frames.
const FRAME_EXTENSIONS: [&str; 5] = ["png", "jpg", "jpeg", "webp", "bmp"];

/// Image files in the folder that is called like the video without its extension, evenly spaced
/// over the whole folder and at most `at_most`.
///
/// # Errors
/// [`DataError::NoFrames`] if there is no such folder or nothing in it; [`DataError::Io`] if it
/// cannot be listed.
pub(super) fn frame_files(
    origin: &RowOrigin,
    video: &Path,
    at_most: usize,
) -> Result<Vec<PathBuf>> {
    let folder = video.with_extension("");
    let no_frames = || DataError::NoFrames {
        origin: origin.clone(),
        folder: folder.clone(),
        video: video.to_owned(),
    };
    if !folder.is_dir() {
        return Err(no_frames());
    }
    let io = |source| DataError::Io {
        path: folder.clone(),
        source,
    };
    let mut frames = Vec::new();
    for entry in folder.read_dir().map_err(io)? {
        let path = entry.map_err(io)?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension.is_some_and(|extension| {
            FRAME_EXTENSIONS.contains(&extension.to_ascii_lowercase().as_str())
        }) {
            frames.push(path);
        }
    }
    if frames.is_empty() {
        return Err(no_frames());
    }
    // Shorter names first, so that 10 comes after 9 even if numbers are not padded with zeros.
    frames.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
    let places = evenly_spaced(frames.len(), at_most);
    Ok(places
        .into_iter()
        .map(|place| frames[place].clone())
        .collect())
}

/// `torch.linspace(0, n - 1, count).round()`, which is how Qwen's own code picks frames; all if
/// there are no more than `at_most`.
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
        let frames = frame_files(&origin, &dir.path().join("clip.mp4"), 8).unwrap();
        let names: Vec<_> = frames
            .iter()
            .map(|path| path.file_name().unwrap())
            .collect();
        assert_eq!(names, ["1.JPG", "9.png", "10.png"]);
        let error = frame_files(&origin, &dir.path().join("other.mp4"), 8).unwrap_err();
        assert!(error.to_string().contains("ffmpeg -i"), "{error}");
    }
}
