//! Locations of images, and reading them.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use vispec_processor::{DecodedImage, ImageOptions, ImageSize, ProcessorError};

use super::io_error;
use super::parquet_cell::{CellPlace, read_cell};
use super::tsv_records::read_field;
use crate::error::{DataError, Result, RowOrigin};
use crate::scenes::Scene;

/// Encoding of the stored bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// The bytes of an image file.
    Plain,
    /// The bytes of an image file in base64.
    Base64,
}

/// Location of the bytes of an image.
#[derive(Debug, Clone)]
pub(super) enum ImagePlace {
    File(PathBuf),
    TsvField {
        path: PathBuf,
        /// Byte offset of the record.
        start: u64,
        field: usize,
        column: String,
    },
    ParquetCell {
        path: PathBuf,
        place: CellPlace,
        column: String,
    },
    Scene(Box<Scene>),
}

/// The location of an image. It holds no pixels, so that a list of samples stays small; each call
/// of [`Self::decode`] reads and decodes the image again.
#[derive(Debug, Clone)]
pub struct ImageSource {
    origin: RowOrigin,
    place: ImagePlace,
    encoding: Encoding,
}

impl ImageSource {
    pub(super) fn new(origin: RowOrigin, place: ImagePlace, encoding: Encoding) -> Self {
        Self {
            origin,
            place,
            encoding,
        }
    }

    /// Returns the source of an image file.
    pub(crate) fn file(origin: RowOrigin, path: PathBuf) -> Self {
        Self::new(origin, ImagePlace::File(path), Encoding::Plain)
    }

    /// Returns the source of a scene, which is drawn when it is decoded.
    pub(crate) fn scene(origin: RowOrigin, scene: Scene) -> Self {
        Self::new(origin, ImagePlace::Scene(Box::new(scene)), Encoding::Plain)
    }

    /// Returns the row that the image belongs to.
    #[must_use]
    pub fn origin(&self) -> &RowOrigin {
        &self.origin
    }

    /// Returns the path of the image if it is a separate file.
    #[must_use]
    pub fn file_path(&self) -> Option<&Path> {
        match &self.place {
            ImagePlace::File(path) => Some(path),
            ImagePlace::TsvField { .. } | ImagePlace::ParquetCell { .. } | ImagePlace::Scene(_) => {
                None
            }
        }
    }

    /// Returns the image as the bytes of a file: the publisher's, or PNG for a drawn scene.
    ///
    /// # Errors
    /// [`DataError::MissingImage`], [`DataError::Base64`], [`DataError::Io`] or
    /// [`DataError::FileSyntax`].
    pub fn image_file(&self) -> Result<Vec<u8>> {
        match &self.place {
            ImagePlace::Scene(scene) => self.png(scene),
            ImagePlace::File(path) => {
                self.image_bytes(Some(std::fs::read(path).map_err(io_error(path))?))
            }
            ImagePlace::TsvField {
                path, start, field, ..
            } => self.image_bytes(read_field(path, *start, *field)?),
            ImagePlace::ParquetCell { path, place, .. } => {
                self.image_bytes(read_cell(path, *place)?)
            }
        }
    }

    /// Returns the bytes of the image file, decoded from the stored bytes.
    fn image_bytes(&self, stored: Option<Vec<u8>>) -> Result<Vec<u8>> {
        let stored = stored.filter(|bytes| !bytes.is_empty());
        let stored = stored.ok_or_else(|| self.missing())?;
        match self.encoding {
            Encoding::Plain => Ok(stored),
            Encoding::Base64 => self.base64_decoded(stored),
        }
    }

    fn png(&self, scene: &Scene) -> Result<Vec<u8>> {
        let mut file = std::io::Cursor::new(Vec::new());
        scene
            .draw()
            .write_to(&mut file, image::ImageFormat::Png)
            .map_err(|error| DataError::FileSyntax {
                path: self.origin.file.clone(),
                format: "PNG",
                reason: error.to_string(),
            })?;
        Ok(file.into_inner())
    }

    /// Reads and decodes the image, or draws the scene.
    ///
    /// # Errors
    /// [`DataError::MissingImage`] if the image does not exist, [`DataError::Base64`],
    /// [`DataError::BadImage`] if it is damaged or exceeds the limits, and [`DataError::Io`] or
    /// [`DataError::FileSyntax`] if the file that contains it cannot be read.
    pub fn decode(&self, options: &ImageOptions) -> Result<DecodedImage> {
        match &self.place {
            ImagePlace::Scene(scene) => self.drawn(scene),
            // A missing file is an error of the row; the processor would report a failed read.
            ImagePlace::File(path) if !path.is_file() || File::open(path).is_err() => {
                Err(self.missing())
            }
            ImagePlace::File(path) => {
                DecodedImage::open(path, options).map_err(|error| self.bad(error))
            }
            ImagePlace::TsvField { .. } | ImagePlace::ParquetCell { .. } => {
                DecodedImage::from_bytes(&self.image_file()?, options)
                    .map_err(|error| self.bad(error))
            }
        }
    }

    /// Some publishers split base64 into lines.
    fn base64_decoded(&self, mut text: Vec<u8>) -> Result<Vec<u8>> {
        text.retain(|byte| !byte.is_ascii_whitespace());
        let decoded = base64::engine::general_purpose::STANDARD.decode(text);
        decoded.map_err(|error| DataError::Base64 {
            origin: self.origin.clone(),
            column: match &self.place {
                ImagePlace::TsvField { column, .. } | ImagePlace::ParquetCell { column, .. } => {
                    column.clone()
                }
                ImagePlace::File(_) | ImagePlace::Scene(_) => String::new(),
            },
            reason: error.to_string(),
        })
    }

    fn drawn(&self, scene: &Scene) -> Result<DecodedImage> {
        let image = scene.draw();
        let size = ImageSize::new(image.height() as usize, image.width() as usize);
        DecodedImage::from_rgb8(size, image.into_raw()).map_err(|error| self.bad(error))
    }

    fn missing(&self) -> DataError {
        DataError::MissingImage {
            origin: self.origin.clone(),
            image: self.to_string(),
        }
    }

    fn bad(&self, source: ProcessorError) -> DataError {
        DataError::BadImage {
            origin: self.origin.clone(),
            source: Box::new(source),
        }
    }
}

impl fmt::Display for ImageSource {
    /// Writes the path of a file, the column of a cell, or `drawn`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            ImagePlace::File(path) => write!(f, "{}", path.display()),
            ImagePlace::TsvField { column, .. } | ImagePlace::ParquetCell { column, .. } => {
                write!(f, "column {column}")
            }
            ImagePlace::Scene(_) => f.write_str("drawn"),
        }
    }
}
