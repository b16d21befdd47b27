//! Decodes image files to 8-bit RGB, within limits.

use std::io::Cursor;
use std::ops::Range;
use std::path::Path;

use image::metadata::Orientation as Noted;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};

use crate::error::{ProcessorError, Result};
use crate::gif_image::GifImage;
use crate::image_options::ImageOptions;
use crate::image_size::ImageSize;
use crate::jpeg_image::JpegImage;
use crate::orientation::{Orientation, noted, turned};
use crate::read_limited::read_limited;

/// Supported formats.
const SUPPORTED_FORMATS: &str = "png, jpeg, webp, gif, bmp";

/// Maximum size of an image file in bytes.
const MAX_FILE: u64 = 512 << 20;

/// An image as 8-bit RGB.
///
/// The conversion matches Pillow's `convert("RGB")`: an alpha channel is dropped, not blended;
/// palettes are looked up; grey is repeated; and 16-bit channels keep their high byte, except that
/// 16-bit grey without alpha is clipped at 255. Only the first frame of an animation is used.
/// Pixels are rotated according to EXIF or XMP, unless [`ImageOptions::orientation`] says
/// otherwise. JPEG may differ from Pillow by a few levels, because decoders round differently; all
/// other formats are equal.
#[derive(Clone, PartialEq, Eq)]
pub struct DecodedImage {
    size: ImageSize,
    rgb: Vec<u8>,
}

impl DecodedImage {
    /// Reads and decodes an image file. The format is detected from the content, not the name.
    ///
    /// # Errors
    /// [`ProcessorError::Io`] if the file cannot be read, [`ProcessorError::FileTooLarge`] if it is
    /// larger than 512 MiB, and those of [`Self::from_bytes`], with the path as the name of the
    /// image.
    pub fn open(path: impl AsRef<Path>, options: &ImageOptions) -> Result<Self> {
        let path = path.as_ref();
        let bytes = read_limited(path, MAX_FILE)?;
        decode(&path.display().to_string(), &bytes, options)
    }

    /// Decodes an image file held in memory.
    ///
    /// # Errors
    /// [`ProcessorError::NotAnImage`], [`ProcessorError::DamagedImage`] (also for truncated files),
    /// [`ProcessorError::EmptyImage`], [`ProcessorError::ImageTooLarge`] or
    /// [`ProcessorError::ImageMemory`].
    pub fn from_bytes(bytes: &[u8], options: &ImageOptions) -> Result<Self> {
        decode("image in memory", bytes, options)
    }

    /// Wraps pixels that are already decoded: `[height, width, 3]`, row-major.
    ///
    /// # Errors
    /// [`ProcessorError::EmptyImage`] if a side is zero, [`ProcessorError::DamagedImage`] if the
    /// number of bytes does not match the size.
    pub fn from_rgb8(size: ImageSize, rgb: Vec<u8>) -> Result<Self> {
        let image = || "pixels in memory".to_owned();
        if size.height == 0 || size.width == 0 {
            let [width, height] =
                [size.width, size.height].map(|side| u32::try_from(side).unwrap_or(u32::MAX));
            return Err(ProcessorError::EmptyImage {
                image: image(),
                width,
                height,
            });
        }
        let expected = size
            .height
            .checked_mul(size.width)
            .and_then(|area| area.checked_mul(3));
        if expected != Some(rgb.len()) {
            let reason = format!("{} bytes for an RGB image {size}", rgb.len());
            return Err(ProcessorError::DamagedImage {
                image: image(),
                reason,
            });
        }
        Ok(Self { size, rgb })
    }

    /// Returns the height and width in pixels, both at least 1.
    #[must_use]
    pub fn size(&self) -> ImageSize {
        self.size
    }

    /// Returns the pixels, `[height, width, 3]`.
    #[must_use]
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }
}

impl std::fmt::Debug for DecodedImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DecodedImage")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

/// Pixels as stored in a file, and their noted orientation.
struct Stored {
    dimensions: (u32, u32),
    rgb: Vec<u8>,
    noted: Noted,
}

fn decode(image: &str, bytes: &[u8], options: &ImageOptions) -> Result<DecodedImage> {
    let damaged = |reason: String| ProcessorError::DamagedImage {
        image: image.to_owned(),
        reason,
    };
    let stored = match image::guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => {
            let mut jpeg = JpegImage::open(bytes).map_err(damaged)?;
            jpeg.fit(image, options)?;
            Stored {
                dimensions: jpeg.dimensions(),
                noted: jpeg.noted(),
                rgb: jpeg.into_rgb8().map_err(damaged)?,
            }
        }
        Ok(ImageFormat::Gif) => {
            let gif = GifImage::open(bytes).map_err(damaged)?;
            options.check(image, gif.dimensions(), options.max_pixels)?;
            Stored {
                dimensions: gif.dimensions(),
                noted: Noted::NoTransforms,
                rgb: gif.into_rgb8().map_err(damaged)?,
            }
        }
        Ok(format) if format.reading_enabled() => decode_other(image, bytes, format, options)?,
        Ok(_) | Err(_) => return Err(not_an_image(image)),
    };
    let (width, height) = stored.dimensions;
    let size = ImageSize::new(height as usize, width as usize);
    let (size, rgb) = match options.orientation {
        Orientation::Upright => turned(size, stored.rgb, stored.noted),
        Orientation::AsStored => (size, stored.rgb),
    };
    Ok(DecodedImage { size, rgb })
}

/// Decodes the formats that the `image` crate reads.
fn decode_other(
    image: &str,
    bytes: &[u8],
    format: ImageFormat,
    options: &ImageOptions,
) -> Result<Stored> {
    let max_bytes = options.decoder_bytes();
    let damaged = |error: ImageError| image_error(image, &error, max_bytes);
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut decoder_limits = Limits::default();
    decoder_limits.max_alloc = Some(max_bytes);
    reader.limits(decoder_limits);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let dimensions = decoder.dimensions();
    options.check(image, dimensions, options.max_pixels)?;
    // Damaged metadata counts as absent.
    let exif = match format {
        ImageFormat::Png => png_exif(bytes).map(<[u8]>::to_vec),
        _ => decoder.exif_metadata().ok().flatten(),
    };
    let xmp = decoder.xmp_metadata().ok().flatten();
    let noted = noted(exif.as_deref(), xmp.as_deref());
    let decoded = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    // Pillow clips images that it reads as one channel of 16 bits. That includes grey images with a
    // transparent level, which the decoder turns into a second channel.
    let sixteen_bit_grey = format == ImageFormat::Png && bytes.get(PNG_SAMPLES) == Some(&[16, 0]);
    let rgb = if sixteen_bit_grey {
        let clipped = |sample: u16| u8::try_from(sample).unwrap_or(u8::MAX);
        let grey = decoded.into_luma16().into_raw();
        grey.into_iter()
            .flat_map(|sample| [clipped(sample); 3])
            .collect()
    } else {
        to_rgb8(decoded)
    };
    Ok(Stored {
        dimensions,
        rgb,
        noted,
    })
}

/// Finds the EXIF data in a PNG file. It may come before or after the pixels; the `image` crate
/// does not find it after them.
fn png_exif(bytes: &[u8]) -> Option<&[u8]> {
    let mut chunks = bytes.get(PNG_SIGNATURE..)?;
    loop {
        let (len, rest) = chunks.split_first_chunk()?;
        let (kind, rest) = rest.split_first_chunk()?;
        let (content, rest) = rest.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        if kind == b"eXIf" {
            return Some(content);
        }
        chunks = rest.get(PNG_CHECKSUM..)?;
    }
}

/// Bytes before the first chunk of a PNG file, and after the content of each chunk.
const PNG_SIGNATURE: usize = 8;
const PNG_CHECKSUM: usize = 4;
/// Offsets of the bits per sample and the colour type in a PNG file; colour type 0 is grey without
/// alpha.
const PNG_SAMPLES: Range<usize> = 24..26;

fn to_rgb8(decoded: DynamicImage) -> Vec<u8> {
    let high_byte = |sample: u16| sample.to_be_bytes()[0];
    match decoded {
        DynamicImage::ImageLumaA16(grey) => grey
            .pixels()
            .flat_map(|pixel| [high_byte(pixel.0[0]); 3])
            .collect(),
        DynamicImage::ImageRgb16(rgb) => rgb.as_raw().iter().copied().map(high_byte).collect(),
        DynamicImage::ImageRgba16(rgba) => rgba
            .pixels()
            .flat_map(|pixel| [pixel.0[0], pixel.0[1], pixel.0[2]].map(high_byte))
            .collect(),
        eight_bit => eight_bit.into_rgb8().into_raw(),
    }
}

fn not_an_image(image: &str) -> ProcessorError {
    ProcessorError::NotAnImage {
        image: image.to_owned(),
        supported: SUPPORTED_FORMATS,
    }
}

fn image_error(image: &str, error: &ImageError, max_bytes: u64) -> ProcessorError {
    let image = image.to_owned();
    match error {
        ImageError::Limits(_) => ProcessorError::ImageMemory {
            image,
            limit: max_bytes,
        },
        other => ProcessorError::DamagedImage {
            image,
            reason: other.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageBuffer, Rgb, Rgba};

    fn encode(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn decode_ok(bytes: &[u8]) -> DecodedImage {
        DecodedImage::from_bytes(bytes, &ImageOptions::default()).unwrap()
    }

    #[test]
    fn alpha_is_dropped() {
        let image = ImageBuffer::from_pixel(2, 1, Rgba([10u8, 20, 30, 0]));
        let bytes = encode(&DynamicImage::ImageRgba8(image), ImageFormat::Png);
        let decoded = decode_ok(&bytes);
        assert_eq!(decoded.rgb(), [10, 20, 30, 10, 20, 30]);
        assert_eq!(decoded.size(), ImageSize::new(1, 2));
    }

    #[test]
    fn sixteen_bits_keep_the_high_byte() {
        let image = ImageBuffer::from_pixel(1, 1, Rgb([0x12ffu16, 0x0100, 0xfeff]));
        let bytes = encode(&DynamicImage::ImageRgb16(image), ImageFormat::Png);
        assert_eq!(decode_ok(&bytes).rgb(), [0x12, 0x01, 0xfe]);
    }

    #[test]
    fn truncated_files_are_errors() {
        let image = ImageBuffer::from_fn(64, 64, |x, y| {
            Rgb([
                (x * 37 % 256) as u8,
                (y * 91 % 256) as u8,
                (x * y % 256) as u8,
            ])
        });
        let encoded = |format| encode(&DynamicImage::ImageRgb8(image.clone()), format);
        let jpeg = include_bytes!("../../../fixtures/images/plain.jpg");
        let progressive = include_bytes!("../../../fixtures/images/progressive.jpg");
        let gif = include_bytes!("../../../fixtures/images/small-frame.gif");
        for (name, bytes) in [
            ("png", encoded(ImageFormat::Png)),
            ("bmp", encoded(ImageFormat::Bmp)),
            ("webp", encoded(ImageFormat::WebP)),
            ("jpeg", jpeg.to_vec()),
            ("progressive jpeg", progressive.to_vec()),
            ("gif", gif.to_vec()),
        ] {
            decode_ok(&bytes);
            for keep in [bytes.len() / 4, bytes.len() / 2, bytes.len() * 3 / 4] {
                let error = DecodedImage::from_bytes(&bytes[..keep], &ImageOptions::default());
                assert!(
                    matches!(error, Err(ProcessorError::DamagedImage { .. })),
                    "{name} {keep}: {error:?}"
                );
            }
        }
    }

    #[test]
    fn other_files_are_not_images() {
        for bytes in [
            &b""[..],
            b"hello",
            b"{\"a\": 1}",
            b"%PDF-1.7",
            b"II*\0\x08\0\0\0",
        ] {
            let error = DecodedImage::from_bytes(bytes, &ImageOptions::default());
            assert!(
                matches!(error, Err(ProcessorError::NotAnImage { .. })),
                "{error:?}"
            );
        }
    }

    #[test]
    fn limits_name_what_is_too_large() {
        let image = DynamicImage::new_rgb8(30, 20);
        let bytes = encode(&image, ImageFormat::Png);
        let limits = ImageOptions {
            max_pixels: 599,
            max_side: 30,
            ..ImageOptions::default()
        };
        let error = DecodedImage::from_bytes(&bytes, &limits).unwrap_err();
        assert!(matches!(
            error,
            ProcessorError::ImageTooLarge {
                quantity: "number of pixels",
                found: 600,
                limit: 599,
                ..
            }
        ));
        let limits = ImageOptions {
            max_pixels: 600,
            max_side: 29,
            ..ImageOptions::default()
        };
        let error = DecodedImage::from_bytes(&bytes, &limits).unwrap_err();
        assert!(matches!(
            error,
            ProcessorError::ImageTooLarge {
                quantity: "longest side",
                ..
            }
        ));
    }
}
