//! How many bytes samples take.

use super::header::{ElementType, StorageKind};

/// Samples of each stage in the paper.
pub const PAPER_SAMPLES: usize = 68_000;

/// Bytes of a token besides its vectors: id and two masks.
const TOKEN_BYTES: usize = 6;

/// Tokens of a sample, by what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleSize {
    /// Tokens of text, question and answer.
    pub text: usize,
    /// Tokens of images.
    pub image: usize,
    /// Images.
    pub images: usize,
}

impl SampleSize {
    /// Bytes of the tensors of such a sample. Images themselves, which online captures may hold, are
    /// not counted.
    #[must_use]
    pub fn bytes(&self, storage: StorageKind, dtype: ElementType, hidden: usize) -> usize {
        let tokens = self.text + self.image;
        let vectors = match storage {
            StorageKind::Full => 2 * tokens * dtype.n_bytes(),
            StorageKind::Compact => {
                let hidden_rows = self.text + self.images;
                (hidden_rows + self.image) * ElementType::Bf16.n_bytes()
            }
            StorageKind::Online => 0,
        };
        vectors * hidden + tokens * TOKEN_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compact_keeps_one_vector_per_token_and_one_more_per_image() {
        let size = SampleSize {
            text: 300,
            image: 256,
            images: 1,
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
