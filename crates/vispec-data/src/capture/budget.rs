//! Storage size of samples.

use super::grouped::n_groups;
use super::header::{ElementType, StorageKind};

/// Samples per stage in the paper.
pub const PAPER_SAMPLES: usize = 68_000;

/// Disk budget for the paper's samples of one stage, in bytes.
pub const DISK_BYTES: u64 = 150_000_000_000;

/// Bytes per token besides its vectors: the id and two masks.
const TOKEN_BYTES: usize = 6;

/// Number of tokens of a sample by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleSize {
    /// Text tokens of question and answer.
    pub text: usize,
    /// Image tokens.
    pub image: usize,
    /// Number of images.
    pub images: usize,
    /// Number of residual stream states kept per token.
    pub states: usize,
}

impl SampleSize {
    /// Returns the size in bytes of the tensors of such a sample. Image files, which packed and
    /// online captures may hold, are not counted.
    #[must_use]
    pub fn bytes(&self, storage: StorageKind, dtype: ElementType, hidden: usize) -> usize {
        let tokens = self.text + self.image;
        // Each kept row has its last hidden state and its residual stream states.
        let hidden_rows = (self.text + self.images) * (1 + self.states);
        let vectors = match storage {
            StorageKind::Full => (2 + self.states) * tokens * hidden * dtype.n_bytes(),
            StorageKind::Compact => {
                (hidden_rows + self.image) * hidden * ElementType::Bf16.n_bytes()
            }
            StorageKind::Packed => {
                hidden_rows * (hidden + n_groups(hidden) * ElementType::Bf16.n_bytes())
            }
            StorageKind::Online => 0,
        };
        vectors + tokens * TOKEN_BYTES
    }

    /// Returns how many text tokens fit into `room` bytes besides the images of this sample; `None`
    /// if the images alone need more.
    #[must_use]
    pub fn text_within(
        &self,
        room: usize,
        storage: StorageKind,
        dtype: ElementType,
        hidden: usize,
    ) -> Option<usize> {
        let bytes = |text| Self { text, ..*self }.bytes(storage, dtype, hidden);
        let images = bytes(0);
        let room = room.checked_sub(images)?;
        Some(room / (bytes(1) - images))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn packed_keeps_eight_bits_of_what_is_read_and_a_scale_for_64() {
        let size = SampleSize {
            text: 300,
            image: 2144,
            images: 1,
            states: 0,
        };
        let packed = size.bytes(StorageKind::Packed, ElementType::F16, 4096);
        assert_eq!(packed, 301 * (4096 + 2 * 64) + 2444 * 6);
    }

    proptest! {
        #[test]
        fn no_more_text_than_that_fits(
            text in 0_usize..100,
            image in 0_usize..3000,
            hidden in 1_usize..6000,
            room in 0_usize..100_000_000,
        ) {
            let size = SampleSize { text, image, images: 1, states: 0 };
            for storage in StorageKind::ALL {
                let bytes = |text| {
                    SampleSize { text, ..size }.bytes(storage, ElementType::F16, hidden)
                };
                match size.text_within(room, storage, ElementType::F16, hidden) {
                    Some(most) => prop_assert!(bytes(most) <= room && bytes(most + 1) > room),
                    None => prop_assert!(bytes(0) > room),
                }
            }
        }
    }

    #[test]
    fn compact_keeps_one_vector_per_token_and_one_more_per_image() {
        let size = SampleSize {
            text: 300,
            image: 256,
            images: 1,
            states: 0,
        };
        let compact = size.bytes(StorageKind::Compact, ElementType::Bf16, 3584);
        assert_eq!(compact, 557 * 3584 * 2 + 556 * 6);
        let full = size.bytes(StorageKind::Full, ElementType::F16, 3584);
        assert_eq!(full, 2 * 556 * 3584 * 2 + 556 * 6);
        assert_eq!(
            size.bytes(StorageKind::Online, ElementType::F16, 3584),
            556 * 6
        );
    }
}
