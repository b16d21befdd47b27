//! What is known of a sample besides its numbers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Stored beside the tensors of a sample, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleRecord {
    /// The publisher's id, or the row.
    pub id: String,
    /// File and row that it was made of.
    pub origin: String,
    /// Tokens before the answer of a sample that the target wrote; all, if it only read.
    pub prompt_tokens: usize,
    /// Where its images are; only captures that are completed during training need them.
    pub images: Vec<ImageRecord>,
}

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ImageRecord {
    /// A file, as the capture was told to find it; the form of captures that did not keep hashes.
    File(PathBuf),
    /// A file, which has to be the same when it is read again.
    HashedFile {
        /// As the capture was told to find it.
        path: PathBuf,
        /// Hash of its bytes.
        sha256: String,
    },
    /// Beside the sample, as an image file of so many bytes.
    Stored(usize),
}

impl ImageRecord {
    /// A file that holds `bytes`.
    #[must_use]
    pub fn of_file(path: PathBuf, bytes: &[u8]) -> Self {
        Self::HashedFile {
            path,
            sha256: sha256(bytes),
        }
    }
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}
