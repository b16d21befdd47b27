//! The metadata of a sample.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Metadata of a sample, stored as JSON beside its tensors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleRecord {
    /// The publisher's id, or the row.
    pub id: String,
    /// File and row of the sample.
    pub origin: String,
    /// Number of tokens before the answer if the target generated it; otherwise the number of all
    /// tokens.
    pub prompt_tokens: usize,
    /// Locations of its images; only needed by captures that training completes.
    pub images: Vec<ImageRecord>,
}

/// The location of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ImageRecord {
    /// A file, with the path given to the capture; written by earlier captures, which kept no
    /// hashes.
    File(PathBuf),
    /// A file whose content must not change before it is read again.
    HashedFile {
        /// The path given to the capture.
        path: PathBuf,
        /// Hash of its content.
        sha256: String,
    },
    /// An image file stored beside the sample, with its length in bytes.
    Stored(usize),
}

impl ImageRecord {
    /// Returns the record of a file whose content is `bytes`.
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
