//! JPEG files, with the colours that libjpeg, and so Pillow, gives them.

use std::panic::{AssertUnwindSafe, catch_unwind};

use jpeg_decoder::{ColorTransform, Decoder, PixelFormat};

use crate::jpeg_header::{JpegHeader, check_scans};

/// A JPEG file whose header has been read.
pub(crate) struct JpegImage<'a> {
    decoder: Decoder<&'a [u8]>,
    width: u16,
    height: u16,
    pixel_format: PixelFormat,
}

impl<'a> JpegImage<'a> {
    /// Reads the header, or says what is wrong with the file.
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
            decoder,
            width: info.width,
            height: info.height,
            pixel_format: info.pixel_format,
        })
    }

    /// Width and height in pixels.
    pub(crate) fn dimensions(&self) -> (u32, u32) {
        (self.width.into(), self.height.into())
    }

    /// The pixels, `[height, width, 3]`.
    pub(crate) fn into_rgb8(mut self) -> Result<Vec<u8>, String> {
        // The decoder asserts what damaged files can break.
        let samples = catch_unwind(AssertUnwindSafe(|| self.decoder.decode()))
            .map_err(|_| "the decoder cannot make sense of it")?
            .map_err(|error| error.to_string())?;
        match self.pixel_format {
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

/// What the components mean, by the rules of libjpeg: JFIF is always YCbCr, else Adobe's marker
/// decides, else the names of the components.
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

/// Pillow's way from ink and black to a colour.
fn unmixed(ink: u8, black: u8) -> u8 {
    let white = 255 - u32::from(black);
    let product = u32::from(ink) * white + 128;
    let covered = ((product >> 8) + product) >> 8;
    u8::try_from(white.saturating_sub(covered)).unwrap_or(u8::MAX)
}
