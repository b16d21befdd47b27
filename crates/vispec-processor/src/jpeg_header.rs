//! The segments of a JPEG file that matter for decoding.
//!
//! Bytes that do not belong to any segment are skipped, as in libjpeg.

use crate::orientation::EXIF_PREFIX;

const FILL: u8 = 0xff;
const START_OF_SCAN: u8 = 0xda;
const END_OF_IMAGE: u8 = 0xd9;
const APP0: u8 = 0xe0;
const APP1: u8 = 0xe1;
const APP14: u8 = 0xee;
const XMP_PREFIX: &[u8] = b"http://ns.adobe.com/xap/1.0/\0";

/// Maximum number of scans in a file; common encoders write about ten. Each scan costs a pass over
/// the image, however few bytes it has.
const MAX_SCANS: usize = 100;

/// The content of a file before its first scan.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct JpegHeader {
    /// Whether the file is marked as JFIF.
    pub(crate) has_jfif: bool,
    /// The transform in Adobe's marker.
    pub(crate) adobe_transform: Option<u8>,
    /// Names of the components, in order.
    pub(crate) component_ids: Vec<u8>,
    /// Horizontal and vertical sampling factors of each component.
    pub(crate) sampling: Vec<[u8; 2]>,
    /// EXIF data, joined if it is in several segments.
    pub(crate) exif: Option<Vec<u8>>,
    /// XMP data, the last segment if there are several.
    pub(crate) xmp: Option<Vec<u8>>,
    /// Offset of the marker of the first scan.
    pub(crate) first_scan: usize,
}

impl JpegHeader {
    /// Reads up to the first scan; returns `None` if there is none.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut header = Self::default();
        let mut at = 2; // after the start-of-image marker
        loop {
            let (kind, after) = next_marker(bytes, at)?;
            match kind {
                END_OF_IMAGE => return None,
                START_OF_SCAN => {
                    header.first_scan = after - 2;
                    return Some(header);
                }
                // Markers without content.
                0x01 | 0xd0..=0xd8 => at = after,
                _ => {
                    let &[high, low] = bytes.get(after..)?.first_chunk()?;
                    let end = after + usize::from(u16::from_be_bytes([high, low])).max(2);
                    header.note(kind, bytes.get(after + 2..end)?);
                    at = end;
                }
            }
        }
    }

    fn note(&mut self, kind: u8, body: &[u8]) {
        match kind {
            APP0 if body.len() >= 12 && body.starts_with(b"JFIF\0") => self.has_jfif = true,
            APP14 if body.len() >= 12 && body.starts_with(b"Adobe") => {
                self.adobe_transform = Some(body[11]);
            }
            APP1 => {
                if let Some(exif) = body.strip_prefix(EXIF_PREFIX) {
                    self.exif.get_or_insert_default().extend_from_slice(exif);
                } else if let Some(xmp) = body.strip_prefix(XMP_PREFIX) {
                    self.xmp = Some(xmp.to_vec());
                }
            }
            // Start of frame for any coding process; the three excluded markers are not frames.
            0xc0..=0xcf if !matches!(kind, 0xc4 | 0xc8 | 0xcc) => {
                let components = body.get(6..).unwrap_or_default();
                self.component_ids = components.chunks(3).map(|entry| entry[0]).collect();
                let sampling = components.as_chunks::<3>().0.iter();
                let sampling = sampling.map(|&[_, factors, _]| [factors >> 4, factors & 15]);
                self.sampling = sampling.collect();
            }
            _ => {}
        }
    }
}

/// Returns the next marker from `at` on, and the offset after it.
fn next_marker(bytes: &[u8], mut at: usize) -> Option<(u8, usize)> {
    loop {
        at += bytes.get(at..)?.iter().position(|&byte| byte == FILL)?;
        at += bytes.get(at..)?.iter().position(|&byte| byte != FILL)?;
        match bytes[at] {
            0 => {}
            kind => return Some((kind, at + 1)),
        }
    }
}

/// Checks the scans of a file and returns what is wrong with them.
///
/// Within a scan the byte 0xff is always escaped. Thumbnails have scans and end markers of their
/// own, but come before the first scan of the file.
///
/// The decoder fills in the missing part of a truncated file, while Pillow rejects the file.
pub(crate) fn check_scans(scans: &[u8]) -> Result<(), String> {
    let count = |kind| {
        let pairs = scans.windows(2);
        pairs.filter(|pair| *pair == [FILL, kind]).count()
    };
    if count(END_OF_IMAGE) == 0 {
        return Err("the end-of-image marker is missing".to_owned());
    }
    let found = count(START_OF_SCAN);
    if found > MAX_SCANS {
        return Err(format!("{found} scans, the limit is {MAX_SCANS}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: [u8; 15] = [
        0xff, 0xd8, 0xff, 0xe1, 0, 4, 0xff, 0xd9, 0xff, 0xda, 0, 2, 1, 2, 3,
    ];

    #[test]
    fn a_marker_inside_a_segment_does_not_count() {
        let scans =
            |bytes: &[u8]| check_scans(&bytes[JpegHeader::read(bytes).unwrap().first_scan..]);
        assert!(scans(&HEAD).unwrap_err().contains("end-of-image"));
        assert_eq!(scans(&[&HEAD[..], &[0xff, 0xd9]].concat()), Ok(()));
        assert_eq!(JpegHeader::read(&[0xff, 0xd8]), None);
    }

    #[test]
    fn bytes_between_segments_are_passed_over() {
        for stray in [
            &[0x00][..],
            &[0x12, 0x34],
            &[0xff, 0xff],
            &[0xff, 0x00, 0x05],
        ] {
            let bytes = [&HEAD[..2], stray, &HEAD[2..8], stray, &HEAD[8..]].concat();
            let header = JpegHeader::read(&bytes).unwrap();
            assert_eq!(bytes[header.first_scan + 1..], HEAD[9..], "{stray:?}");
        }
    }

    #[test]
    fn scans_are_counted() {
        let scans = [0xff, 0xda, 0, 0].repeat(MAX_SCANS + 1);
        let error = check_scans(&[&scans[..], &[0xff, 0xd9]].concat()).unwrap_err();
        assert_eq!(error, "101 scans, the limit is 100");
    }
}
