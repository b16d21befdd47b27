//! JPEG files, decoded to the same colours as libjpeg, and so Pillow, gives.

use std::panic::{AssertUnwindSafe, catch_unwind};

use image::metadata::Orientation as Noted;
use jpeg_decoder::{CodingProcess, ColorTransform, Decoder, ImageInfo, PixelFormat};

use crate::error::{ProcessorError, Result as ProcessorResult};
use crate::image_options::ImageOptions;
use crate::jpeg_header::{JpegHeader, check_scans};
use crate::orientation::noted;

/// Factors by which the decoder can scale the sides of a picture down.
const DIVISORS: [u16; 4] = [1, 2, 4, 8];

/// A JPEG file whose header has been read.
pub(crate) struct JpegImage<'a> {
    header: JpegHeader,
    decoder: Decoder<&'a [u8]>,
    info: ImageInfo,
}

impl<'a> JpegImage<'a> {
    /// Reads the header, or returns what is wrong with the file.
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self, String> {
        let header = JpegHeader::read(bytes).ok_or("there is no scan")?;
        let mut decoder = Decoder::new(bytes);
        if let Some(transform) = color_transform(&header) {
            decoder.set_color_transform(transform);
        }
        decoder.read_info().map_err(|error| error.to_string())?;
        let info = decoder.info().ok_or("there is no frame")?;
        check_scans(bytes.get(header.first_scan..).unwrap_or_default())?;
        Ok(Self {
            header,
            decoder,
            info,
        })
    }

    /// Returns the width and height in pixels of the decoded picture.
    pub(crate) fn dimensions(&self) -> (u32, u32) {
        (self.info.width.into(), self.info.height.into())
    }

    /// Returns the orientation noted in the file.
    pub(crate) fn noted(&self) -> Noted {
        noted(self.header.exif.as_deref(), self.header.xmp.as_deref())
    }

    /// Checks the size, and scales a picture with too many pixels down by the smallest sufficient
    /// divisor.
    ///
    /// # Errors
    /// The errors of [`ImageOptions::check`]; [`ProcessorError::ImageMemory`] if a progressive
    /// picture has more coefficients than the memory limit allows, because they are kept at full
    /// size.
    pub(crate) fn fit(&mut self, image: &str, options: &ImageOptions) -> ProcessorResult<()> {
        let most = match self.info.coding_process {
            CodingProcess::Lossless => options.max_pixels,
            _ => options.max_photo_pixels.max(options.max_pixels),
        };
        options.check(image, self.dimensions(), most)?;
        let (width, height) = (self.info.width, self.info.height);
        let scaled = |divisor: u16| (width.div_ceil(divisor), height.div_ceil(divisor));
        let fits = |divisor: &u16| {
            let (width, height) = scaled(*divisor);
            u64::from(width) * u64::from(height) <= options.max_pixels
        };
        let divisor = match DIVISORS.into_iter().find(fits) {
            Some(1) => return Ok(()),
            Some(divisor) => divisor,
            None => return options.check(image, self.dimensions(), options.max_pixels),
        };
        if self.info.coding_process == CodingProcess::DctProgressive
            && self.coefficient_bytes() > options.decoder_bytes()
        {
            return Err(ProcessorError::ImageMemory {
                image: image.to_owned(),
                limit: options.decoder_bytes(),
            });
        }
        // The decoder picks the smallest scaled size that is at least the requested one.
        let (width, height) = scaled(divisor);
        let scaled = self.decoder.scale(width, height);
        (self.info.width, self.info.height) =
            scaled.map_err(|error| ProcessorError::DamagedImage {
                image: image.to_owned(),
                reason: error.to_string(),
            })?;
        Ok(())
    }

    /// Returns the bytes that all coefficients of the picture take, at 16 bits each.
    fn coefficient_bytes(&self) -> u64 {
        let sampling = || self.header.sampling.iter();
        let area = |[across, down]: [u8; 2]| u64::from(across) * u64::from(down);
        let samples: u64 = sampling().map(|&factors| area(factors)).sum();
        let most = |axis: usize| sampling().map(|factors| factors[axis]).max();
        let most = area([0, 1].map(|axis| most(axis).unwrap_or(1))).max(1);
        let pixels = u64::from(self.info.width) * u64::from(self.info.height);
        2 * pixels * samples / most
    }

    /// Decodes the pixels, `[height, width, 3]`.
    pub(crate) fn into_rgb8(mut self) -> Result<Vec<u8>, String> {
        // Damaged files can fail assertions in the decoder.
        let samples = catch_unwind(AssertUnwindSafe(|| self.decoder.decode()))
            .map_err(|_| "the decoder failed on this file")?
            .map_err(|error| error.to_string())?;
        match self.info.pixel_format {
            PixelFormat::RGB24 => Ok(samples),
            PixelFormat::L8 => Ok(samples.iter().flat_map(|&grey| [grey; 3]).collect()),
            PixelFormat::CMYK32 => Ok(samples
                .as_chunks::<4>()
                .0
                .iter()
                .flat_map(|&[c, m, y, k]| [c, m, y].map(|ink| unmixed(ink, k)))
                .collect()),
            PixelFormat::L16 => Err("samples of more than 8 bits".to_owned()),
        }
    }
}

/// Returns the colour space of the components by the rules of libjpeg: JFIF is always YCbCr, else
/// Adobe's marker decides, else the names of the components.
fn color_transform(header: &JpegHeader) -> Option<ColorTransform> {
    match *header.component_ids.as_slice() {
        [first, second, third] => Some(match header.adobe_transform {
            _ if header.has_jfif => ColorTransform::YCbCr,
            Some(0) => ColorTransform::RGB,
            Some(_) => ColorTransform::YCbCr,
            None if [first, second, third] == *b"RGB" => ColorTransform::RGB,
            None => ColorTransform::YCbCr,
        }),
        [_, _, _, _] => Some(match header.adobe_transform {
            None | Some(0) => ColorTransform::CMYK,
            Some(_) => ColorTransform::YCCK,
        }),
        _ => None,
    }
}

/// Converts ink and black to a colour channel as Pillow does.
fn unmixed(ink: u8, black: u8) -> u8 {
    let white = 255 - u32::from(black);
    let product = u32::from(ink) * white + 128;
    let covered = ((product >> 8) + product) >> 8;
    u8::try_from(white.saturating_sub(covered)).unwrap_or(u8::MAX)
}
