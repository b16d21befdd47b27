//! Where the frames of a video are, and reading them from there.

use std::fmt;
use std::path::{Path, PathBuf};

use vispec_processor::{DecodedImage, ImageOptions, Video, frame_files};

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

/// The frames in a folder, in order; none if there is no such folder.
///
/// # Errors
/// [`DataError::Io`] if it cannot be listed.
pub(crate) fn frames_in(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    frame_files(folder).map_err(|source| DataError::Io {
        path: folder.to_owned(),
        source,
    })
}
