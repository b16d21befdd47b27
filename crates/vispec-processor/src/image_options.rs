//! How image files are read: how large they may be, and which way up.

use crate::error::{ProcessorError, Result};
use crate::orientation::Orientation;

/// How image files are read. Sizes are checked against headers, before pixels are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageOptions {
    /// Largest number of pixels that are decoded; 64 Mi by default. Decoders may take 16 bytes for
    /// each.
    pub max_pixels: u64,
    /// Largest number of pixels of a JPEG file; 256 Mi by default. Those with more than `max_pixels`
    /// are decoded at a half, a quarter or an eighth of their sides.
    pub max_photo_pixels: u64,
    /// Longest side in pixels; 65 500 by default.
    pub max_side: u32,
    /// What becomes of a note that pixels have to be turned.
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
    /// The default limits, and pixels as they are stored: what upstream's scripts read.
    #[must_use]
    pub fn as_stored() -> Self {
        Self {
            orientation: Orientation::AsStored,
            ..Self::default()
        }
    }

    /// Looks at the size in a header.
    ///
    /// # Errors
    /// [`ProcessorError::EmptyImage`], and [`ProcessorError::ImageTooLarge`] with more than
    /// `max_pixels` pixels or a side beyond the limit.
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

    /// Bytes that a decoder may take.
    pub(crate) fn decoder_bytes(&self) -> u64 {
        self.max_pixels.saturating_mul(DECODER_BYTES_PER_PIXEL)
    }
}

/// Bytes per pixel that a decoder may need at most: four channels of 16 bits, twice.
const DECODER_BYTES_PER_PIXEL: u64 = 16;
