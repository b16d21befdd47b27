//! Videos as folders of frames.

use std::convert::Infallible;
use std::path::PathBuf;
use std::str::FromStr;

use anyhow::Context;
use vispec_processor::{DecodedImage, ImageOptions, Video, frame_files};

use crate::failure::Failure;

/// Default frames per second of a folder.
const DEFAULT_FPS: f64 = 2.0;

/// A folder of frames and its frame rate.
#[derive(Debug, Clone, PartialEq)]
pub struct VideoFolder {
    dir: PathBuf,
    fps: f64,
}

impl FromStr for VideoFolder {
    type Err = Infallible;

    /// Parses `DIR@FPS`, or a folder whose name may contain an `@` that no number follows.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self::new(text.into()))
    }
}

impl VideoFolder {
    /// Creates a folder from a path that may end with `@` and the frames per second.
    #[must_use]
    pub fn new(named: PathBuf) -> Self {
        let split = named.to_str().and_then(|text| text.rsplit_once('@'));
        let split = split.and_then(|(dir, fps)| Some((dir.into(), fps.parse().ok()?)));
        let (dir, fps) = split.unwrap_or((named, DEFAULT_FPS));
        Self { dir, fps }
    }

    /// Reads only the frames that are used.
    ///
    /// # Errors
    /// If the folder cannot be read or has no image files, frames are not images or differ in size,
    /// there are too many pixels, or the rate is invalid.
    pub fn read(&self, limits: &ImageOptions) -> Result<Video, Failure> {
        // Not as a plain I/O error, which a chat would take for the end of its output.
        let place = || self.dir.display().to_string();
        let files =
            frame_files(&self.dir).map_err(|error| anyhow::anyhow!("{}: {error}", place()))?;
        let video = Video::sampled((files.len(), self.fps), Video::MAX_PIXELS, |place| {
            DecodedImage::open(&files[place], limits)
        });
        Ok(video.with_context(place)?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_rate_stands_behind_the_last_at_sign() {
        let folder = |text: &str| -> VideoFolder {
            let Ok(folder) = text.parse();
            folder
        };
        let expected = |dir: &str, fps| VideoFolder {
            dir: dir.into(),
            fps,
        };
        assert_eq!(folder("frames"), expected("frames", 2.0));
        assert_eq!(folder("frames@10"), expected("frames", 10.0));
        assert_eq!(folder("me@home/x@0.5"), expected("me@home/x", 0.5));
        assert_eq!(folder("me@home"), expected("me@home", 2.0));
    }

    /// Returns a bitmap of one line; `width` is a multiple of four.
    fn bitmap(width: u8) -> Vec<u8> {
        let pixels = vec![7; 3 * usize::from(width)];
        let mut file = b"BM".to_vec();
        for word in [54 + pixels.len() as u32, 0, 54, 40, u32::from(width), 1] {
            file.extend(word.to_le_bytes());
        }
        file.extend([1, 0, 24, 0]);
        file.extend([0; 24]);
        file.extend(pixels);
        file
    }

    /// Returns the number of frames in a folder with links to two frames and a text file.
    #[cfg(unix)]
    fn linked_frames(frames: &std::path::Path, limits: &ImageOptions) -> usize {
        let dir = tempfile::tempdir().unwrap();
        for name in ["0.bmp", "1.bmp"] {
            std::os::unix::fs::symlink(frames.join(name), dir.path().join(name)).unwrap();
        }
        fs::write(dir.path().join("notes.txt"), "two frames").unwrap();
        let folder = VideoFolder::new(dir.path().to_owned());
        folder.read(limits).unwrap().frames().len()
    }

    #[test]
    fn folders_that_are_no_videos_are_refused() {
        let limits = ImageOptions::default();
        let dir = tempfile::tempdir().unwrap();
        let read = |fps: f64| {
            let folder = VideoFolder {
                dir: dir.path().to_owned(),
                fps,
            };
            folder.read(&limits).map(|video| video.frames().len())
        };
        assert!(read(2.0).is_err());
        for name in 0..9 {
            let path = dir.path().join(format!("{name}.bmp"));
            fs::write(path, bitmap(if name == 8 { 8 } else { 4 })).unwrap();
        }
        // Frames 0, 3, 5 and 8: the last one is wider.
        assert!(read(100.0).is_err());
        for fps in [0.0, f64::NAN, -2.0] {
            assert!(read(fps).is_err());
        }
        fs::remove_file(dir.path().join("8.bmp")).unwrap();
        assert_eq!(read(2.0).unwrap(), 8);
        assert_eq!(read(4.0).unwrap(), 4);
        // Links to frames count as frames, other files do not.
        #[cfg(unix)]
        assert_eq!(linked_frames(dir.path(), &limits), 2);
        fs::write(dir.path().join("3.bmp"), "no image").unwrap();
        assert!(read(2.0).is_err());
        let missing = VideoFolder {
            dir: dir.path().join("nothing"),
            fps: 2.0,
        };
        assert!(missing.read(&limits).is_err());
    }
}
