//! Which way up images are: what cameras note in EXIF or XMP, as Pillow reads it.

use std::str::FromStr;

use image::metadata::Orientation as Noted;
use image::{DynamicImage, RgbImage};

use crate::error::ProcessorError;
use crate::image_size::ImageSize;

/// What becomes of a note in an image file that its pixels have to be turned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Orientation {
    /// They are turned, as `load_image` of transformers does it.
    #[default]
    Upright,
    /// They stay as they are, as in upstream's scripts.
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

/// What precedes EXIF where it stands among other data.
pub(crate) const EXIF_PREFIX: &[u8] = b"Exif\0\0";
/// What precedes the digit in XMP, as attribute and as element.
const XMP_TAGS: [&[u8]; 2] = [b"tiff:Orientation=\"", b"tiff:Orientation>"];

/// What a file notes, EXIF before XMP. A note that cannot be read counts as none.
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

/// Turns pixels `[height, width, 3]`, which must be as many as `size` says.
pub(crate) fn turned(size: ImageSize, rgb: Vec<u8>, noted: Noted) -> (ImageSize, Vec<u8>) {
    if noted == Noted::NoTransforms {
        return (size, rgb);
    }
    let [width, height] = [size.width, size.height].map(|side| side as u32);
    let image = RgbImage::from_raw(width, height, rgb).expect("as many pixels as the size says");
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(noted);
    let size = ImageSize::new(image.height() as usize, image.width() as usize);
    (size, image.into_rgb8().into_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EXIF with nothing but this orientation, little endian.
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
