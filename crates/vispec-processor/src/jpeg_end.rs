//! Whether a JPEG file is complete.
//!
//! The decoder fills what is missing of a truncated JPEG with grey, while Pillow refuses it.

const START_OF_SCAN: u8 = 0xda;
const END_OF_IMAGE: [u8; 2] = [0xff, 0xd9];

/// Whether the end-of-image marker follows the first scan. Within a scan the byte 0xff is always
/// escaped, and thumbnails, which have such a marker of their own, come before it.
pub(crate) fn jpeg_has_end(bytes: &[u8]) -> bool {
    let mut at = 2; // after the start-of-image marker
    loop {
        let Some(&[mark, kind, high, low]) = bytes.get(at..at + 4) else {
            return false;
        };
        if mark != 0xff {
            return false;
        }
        if kind == 0xff {
            at += 1; // padding between segments
            continue;
        }
        if kind == START_OF_SCAN {
            return bytes[at..].windows(2).any(|pair| pair == END_OF_IMAGE);
        }
        at += 2 + usize::from(u16::from_be_bytes([high, low]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_inside_a_segment_does_not_count() {
        let head = [
            0xff, 0xd8, 0xff, 0xe1, 0, 4, 0xff, 0xd9, 0xff, 0xda, 0, 2, 1, 2, 3,
        ];
        assert!(!jpeg_has_end(&head));
        assert!(jpeg_has_end(&[&head[..], &END_OF_IMAGE].concat()));
        assert!(!jpeg_has_end(&[0xff, 0xd8]));
    }
}
