//! Orientation of images, as noted by cameras in EXIF or XMP and read by Pillow.

use std::str::FromStr;

use image::metadata::Orientation as Noted;
use image::{DynamicImage, RgbImage};

use crate::error::ProcessorError;
use crate::image_size::ImageSize;

/// Whether pixels are rotated according to the orientation noted in their file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Orientation {
    /// Pixels are rotated, as in `load_image` of transformers.
    #[default]
    Upright,
    /// Pixels stay as stored, as in upstream's scripts.
    AsStored,
}

impl FromStr for Orientation {
    type Err = ProcessorError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "upright" => Ok(Self::Upright),
            "as-stored" => Ok(Self::AsStored),
            _ => Err(ProcessorError::UnknownOrientation {
                found: name.to_owned(),
            }),
        }
    }
}

/// Prefix of EXIF data that is embedded in other data.
pub(crate) const EXIF_PREFIX: &[u8] = b"Exif\0\0";
/// Text before the digit in XMP, as attribute and as element.
const XMP_TAGS: [&[u8]; 2] = [b"tiff:Orientation=\"", b"tiff:Orientation>"];

/// Returns the orientation noted in a file; EXIF takes precedence over XMP. A note that cannot be
/// read counts as absent.
pub(crate) fn noted(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Noted {
    let of_exif = exif.and_then(|mut exif| {
        while let Some(rest) = exif.strip_prefix(EXIF_PREFIX) {
            exif = rest;
        }
        Noted::from_exif_chunk(exif)
    });
    let noted = of_exif.or_else(|| in_xmp(xmp?));
    noted.unwrap_or(Noted::NoTransforms)
}

fn in_xmp(xmp: &[u8]) -> Option<Noted> {
    let digit = (0..xmp.len()).find_map(|at| {
        let behind = XMP_TAGS.iter().find_map(|tag| xmp[at..].strip_prefix(*tag));
        behind?.first().filter(|digit| digit.is_ascii_digit())
    });
    Noted::from_exif(digit? - b'0')
}

/// Rotates or flips pixels `[height, width, 3]`; their number must match `size`.
pub(crate) fn turned(size: ImageSize, rgb: Vec<u8>, noted: Noted) -> (ImageSize, Vec<u8>) {
    if noted == Noted::NoTransforms {
        return (size, rgb);
    }
    let [width, height] = [size.width, size.height].map(|side| side as u32);
    let image =
        RgbImage::from_raw(width, height, rgb).expect("the number of pixels matches the size");
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(noted);
    let size = ImageSize::new(image.height() as usize, image.width() as usize);
    (size, image.into_rgb8().into_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns EXIF data with only this orientation, little endian.
    fn exif(value: u8) -> Vec<u8> {
        let head = b"II\x2a\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0";
        [head, &[value, 0, 0, 0][..]].concat()
    }

    #[test]
    fn exif_counts_before_xmp() {
        let xmp = |value| format!("<x tiff:Orientation=\"{value}\"/>").into_bytes();
        let prefixed = [EXIF_PREFIX, &exif(6)].concat();
        assert_eq!(noted(Some(&exif(6)), Some(&xmp(3))), Noted::Rotate90);
        assert_eq!(noted(Some(&prefixed), None), Noted::Rotate90);
        assert_eq!(noted(None, Some(&xmp(3))), Noted::Rotate180);
        let element = b"<tiff:Orientation>8</tiff:Orientation>";
        assert_eq!(noted(None, Some(element)), Noted::Rotate270);
    }

    #[test]
    fn what_cannot_be_read_turns_nothing() {
        for value in [0, 1, 9, 255] {
            assert_eq!(noted(Some(&exif(value)), None), Noted::NoTransforms);
        }
        for bytes in [&b""[..], b"II*\0", b"MM\0*\xff\xff\xff\xff", &exif(6)[..20]] {
            assert_eq!(noted(Some(bytes), Some(bytes)), Noted::NoTransforms);
        }
        assert_eq!(
            noted(None, Some(b"tiff:Orientation=\"9")),
            Noted::NoTransforms
        );
        assert_eq!(
            noted(None, Some(b"tiff:Orientation=\"")),
            Noted::NoTransforms
        );
    }
}
