//! Where the frames of a video are, and reading them from there.

use std::fmt;
use std::path::{Path, PathBuf};

use vispec_processor::{DecodedImage, ImageOptions, Video};

use crate::error::{DataError, Result, RowOrigin};
use crate::rows::ImageSource;

/// The place of a video: a folder of frames, of which some are looked at. It holds no pixels.
#[derive(Debug, Clone)]
pub struct VideoSource {
    origin: RowOrigin,
    folder: PathBuf,
    /// All frames, in order.
    files: Vec<PathBuf>,
    /// Frames per second.
    fps: f64,
    /// Numbers of the frames that are looked at.
    places: Vec<usize>,
}

impl VideoSource {
    /// The frames of a folder; those with the numbers `places`, ascending, are looked at.
    pub(crate) fn new(
        origin: RowOrigin,
        folder: PathBuf,
        (files, fps): (Vec<PathBuf>, f64),
        places: Vec<usize>,
    ) -> Self {
        Self {
            origin,
            folder,
            files,
            fps,
            places,
        }
    }

    /// The row that the video belongs to.
    #[must_use]
    pub fn origin(&self) -> &RowOrigin {
        &self.origin
    }

    /// The frames that are looked at, as images by themselves.
    pub fn frames(&self) -> impl Iterator<Item = ImageSource> {
        let files = self
            .places
            .iter()
            .filter_map(|&place| self.files.get(place));
        files.map(|file| ImageSource::file(self.origin.clone(), file.clone()))
    }

    /// Reads and decodes the frames that are looked at.
    ///
    /// # Errors
    /// [`DataError::BadImage`] if one cannot be read, they differ in size, or together they take too
    /// much memory.
    pub fn decode(&self, options: &ImageOptions) -> Result<Video> {
        let of = (self.files.len(), self.fps);
        let video = Video::chosen(self.places.clone(), of, Video::MAX_PIXELS, |place| {
            DecodedImage::open(&self.files[place], options)
        });
        video.map_err(|source| DataError::BadImage {
            origin: self.origin.clone(),
            source: Box::new(source),
        })
    }
}

impl fmt::Display for VideoSource {
    /// The folder and the number of frames that are looked at.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frames = self.places.len();
        write!(f, "{}, {frames} frames", self.folder.display())
    }
}

/// Extensions of image files that are frames.
const FRAME_EXTENSIONS: [&str; 5] = ["png", "jpg", "jpeg", "webp", "bmp"];

/// The image files in a folder in the order of their names, shorter ones first, so that 10 comes
/// after 9 even if numbers are not padded with zeros; empty if there is no such folder.
///
/// # Errors
/// [`DataError::Io`] if it cannot be listed.
pub fn frame_files(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let io = |source| DataError::Io {
        path: folder.to_owned(),
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
    frames.sort_by_key(|path| (path.as_os_str().len(), path.clone()));
    Ok(frames)
}
