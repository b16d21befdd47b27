//! What is known of a sample besides its numbers.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
    /// A file, as the capture was told to find it.
    File(PathBuf),
    /// Beside the sample, as an image file of so many bytes.
    Stored(usize),
}
