//! Digests that identify images by their pixels.

use sha2::{Digest as _, Sha256};
use vispec_processor::{DecodedImage, Video};

/// SHA-256 of the size and the pixels of an image. Files with equal pixels have equal digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ImageDigest([u8; 32]);

impl ImageDigest {
    /// Returns the digest of an image.
    pub(crate) fn of(image: &DecodedImage) -> Self {
        let size = image.size();
        let mut hasher = Sha256::new();
        for side in [size.height, size.width] {
            hasher.update((side as u64).to_le_bytes());
        }
        hasher.update(image.rgb());
        Self(hasher.finalize().into())
    }

    /// Returns the digests of the first `n` parts of a video, which depend on all of its frames and
    /// their rate.
    pub(crate) fn of_parts(video: &Video, n: usize) -> Vec<Self> {
        let mut hasher = Sha256::new();
        hasher.update(b"video");
        hasher.update(video.rate().to_le_bytes());
        for frame in video.frames() {
            hasher.update(Self::of(frame).0);
        }
        let part = |index: usize| {
            let mut hasher = hasher.clone();
            hasher.update((index as u64).to_le_bytes());
            Self(hasher.finalize().into())
        };
        (0..n).map(part).collect()
    }
}
