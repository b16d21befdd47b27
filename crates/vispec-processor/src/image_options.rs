//! Options for reading image files: size limits and orientation.

use crate::error::{ProcessorError, Result};
use crate::orientation::Orientation;

/// Options for reading image files. Sizes are checked in the header, before pixels are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageOptions {
    /// Maximum number of pixels to decode; 64 Mi by default. Decoders may use 16 bytes per pixel.
    pub max_pixels: u64,
    /// Maximum number of pixels of a JPEG file; 256 Mi by default. Files with more than
    /// `max_pixels` are decoded at a half, a quarter or an eighth of their sides.
    pub max_photo_pixels: u64,
    /// Maximum side in pixels; 65 500 by default.
    pub max_side: u32,
    /// Whether to apply the orientation noted in a file.
    pub orientation: Orientation,
}

impl Default for ImageOptions {
    fn default() -> Self {
        Self {
            max_pixels: 64 << 20,
            max_photo_pixels: 256 << 20,
            max_side: 65_500,
            orientation: Orientation::Upright,
        }
    }
}

impl ImageOptions {
    /// Returns the default limits, with pixels as they are stored. Upstream's scripts read images
    /// this way.
    #[must_use]
    pub fn as_stored() -> Self {
        Self {
            orientation: Orientation::AsStored,
            ..Self::default()
        }
    }

    /// Checks the size in a header.
    ///
    /// # Errors
    /// [`ProcessorError::EmptyImage`] if a side is zero; [`ProcessorError::ImageTooLarge`] if there
    /// are more than `max_pixels` pixels or a side exceeds the limit.
    pub(crate) fn check(
        &self,
        image: &str,
        (width, height): (u32, u32),
        max_pixels: u64,
    ) -> Result<()> {
        if width == 0 || height == 0 {
            return Err(ProcessorError::EmptyImage {
                image: image.to_owned(),
                width,
                height,
            });
        }
        let longest = u64::from(width.max(height));
        let n_pixels = u64::from(width) * u64::from(height);
        for (quantity, found, limit) in [
            ("longest side", longest, self.max_side.into()),
            ("number of pixels", n_pixels, max_pixels),
        ] {
            if found > limit {
                return Err(ProcessorError::ImageTooLarge {
                    image: image.to_owned(),
                    quantity,
                    found,
                    limit,
                });
            }
        }
        Ok(())
    }

    /// Returns the number of bytes that a decoder may use.
    pub(crate) fn decoder_bytes(&self) -> u64 {
        self.max_pixels.saturating_mul(DECODER_BYTES_PER_PIXEL)
    }
}

/// Maximum bytes per pixel that a decoder may need: four channels of 16 bits, twice.
const DECODER_BYTES_PER_PIXEL: u64 = 16;
