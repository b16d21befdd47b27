//! Locations of videos, and reading their frames.

use std::fmt;
use std::path::{Path, PathBuf};

use vispec_processor::{DecodedImage, ImageOptions, Video, frame_files};

use crate::error::{DataError, Result, RowOrigin};
use crate::rows::ImageSource;

/// The location of a video: a folder of frames, some of which are selected. It holds no pixels.
#[derive(Debug, Clone)]
pub struct VideoSource {
    origin: RowOrigin,
    folder: PathBuf,
    /// All frames, in order.
    files: Vec<PathBuf>,
    /// Frames per second.
    fps: f64,
    /// Indices of the selected frames.
    places: Vec<usize>,
}

impl VideoSource {
    /// Returns the source of a folder's frames with the ascending indices `places` selected.
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

    /// Returns the selected frames as separate images.
    pub fn frames(&self) -> impl Iterator<Item = ImageSource> {
        let files = self
            .places
            .iter()
            .filter_map(|&place| self.files.get(place));
        files.map(|file| ImageSource::file(self.origin.clone(), file.clone()))
    }

    /// Reads and decodes the selected frames.
    ///
    /// # Errors
    /// [`DataError::BadImage`] if a frame cannot be read, if frames differ in size, or if together
    /// they need too much memory.
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
    /// Writes the folder and the number of selected frames.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let frames = self.places.len();
        write!(f, "{}, {frames} frames", self.folder.display())
    }
}

/// Returns the frames in a folder, in order; empty if the folder does not exist.
///
/// # Errors
/// [`DataError::Io`] if the folder cannot be listed.
pub(crate) fn frames_in(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    frame_files(folder).map_err(|source| DataError::Io {
        path: folder.to_owned(),
        source,
    })
}
