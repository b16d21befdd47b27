//! Errors of captures.

use std::path::PathBuf;

use super::positions::PositionRange;

/// Everything that can go wrong while a capture is written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// A file could not be opened, read, written or renamed.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system reported.
        #[source]
        source: std::io::Error,
    },
    /// A directory holds no capture.
    #[error("{dir}: no capture here, expected a file capture.json")]
    NoCapture {
        /// The directory.
        dir: PathBuf,
    },
    /// The content of a file does not match its format.
    #[error("{path}: damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The mismatch.
        reason: String,
    },
    /// A capture was written by a different version of this program.
    #[error("{path}: capture format {found}, expected {expected}")]
    Version {
        /// The manifest.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The supported version.
        expected: u32,
    },
    /// The requested capture differs from the one on disk.
    #[error("{path}: {field} is {found}, expected {expected}")]
    Mismatch {
        /// The manifest.
        path: PathBuf,
        /// The field in which they differ.
        field: String,
        /// Its value in the file.
        found: String,
        /// The requested value.
        expected: String,
    },
    /// The length of a shard differs from the manifest.
    #[error("{path}: {found} bytes, expected {expected}; the file was cut short or replaced")]
    ShardLength {
        /// The shard.
        path: PathBuf,
        /// Length of the file.
        found: u64,
        /// Length in the manifest.
        expected: u64,
    },
    /// The content of a shard differs from the manifest.
    #[error("{path}: sha256 {found}, expected {expected}")]
    ShardHash {
        /// The shard.
        path: PathBuf,
        /// Hash of the file.
        found: String,
        /// Hash in the manifest.
        expected: String,
    },
    /// Another process is writing the same capture.
    #[error("{path}: another process is writing this capture")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// Parts of a sample have inconsistent lengths.
    #[error("sample {id}: {what} has {found} rows, expected {expected}")]
    SampleShape {
        /// The sample.
        id: String,
        /// The inconsistent part.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The expected length.
        expected: usize,
    },
    /// A value is not finite, or too large for the element type that it is stored in.
    #[error("sample {id}: {what} holds {found}, which {dtype} cannot hold")]
    NotFinite {
        /// The sample.
        id: String,
        /// The part that holds the value.
        what: &'static str,
        /// The value.
        found: f32,
        /// The element type.
        dtype: &'static str,
    },
    /// A position is outside the range of the capture.
    #[error("position {position} is not in {range}")]
    Position {
        /// The position.
        position: usize,
        /// The range of the capture.
        range: PositionRange,
    },
    /// The index of a sample is out of range.
    #[error("{dir}: there is no sample {index}, the capture has {len}")]
    NoSample {
        /// The capture.
        dir: PathBuf,
        /// The requested index, from 0.
        index: usize,
        /// Number of samples.
        len: usize,
    },
    /// A capture is not finished.
    #[error("{dir}: {missing} of {expected} positions are not captured; run the capture again")]
    Unfinished {
        /// The capture.
        dir: PathBuf,
        /// Number of missing positions.
        missing: usize,
        /// Number of positions of the capture.
        expected: usize,
    },
    /// Two captures that should be merged overlap.
    #[error("{path}: covers {found}, which {other} covers, too")]
    Overlap {
        /// One manifest.
        path: PathBuf,
        /// Its positions.
        found: PositionRange,
        /// The other manifest.
        other: PathBuf,
    },
    /// Captures that should be merged leave a gap.
    #[error("the captures cover {found} of {expected}; {missing} is in none of them")]
    Gap {
        /// Number of covered positions.
        found: usize,
        /// All positions of the range.
        expected: PositionRange,
        /// The first missing positions.
        missing: PositionRange,
    },
    /// The syntax of a share is wrong.
    #[error("share {found:?}, expected I/N with I from 1 to N")]
    ShareSyntax {
        /// The given text.
        found: String,
    },
    /// The reader cannot complete the samples of this storage kind without further sources.
    #[error("{dir}: samples are stored as {found}; {advice}")]
    NeedsMore {
        /// The capture.
        dir: PathBuf,
        /// The storage kind.
        found: &'static str,
        /// What the reader lacks.
        advice: &'static str,
    },
    /// An image of a sample has changed since the capture.
    #[error(
        "{path}: sha256 {found}, expected {expected}; the image was replaced after the capture"
    )]
    ImageHash {
        /// The image.
        path: PathBuf,
        /// Hash of the file.
        found: String,
        /// Hash of the file that was captured.
        expected: String,
    },
    /// The image features of a packed capture, which does not store them, could not be computed.
    #[error("sample {id} ({origin}): computing its image features: {source}")]
    ImageFeatures {
        /// The sample.
        id: String,
        /// File and row of the sample.
        origin: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A token of a sample has no embedding.
    #[error("sample {id}: token {token} has no embedding of {hidden} values")]
    NoEmbedding {
        /// The sample.
        id: String,
        /// The token.
        token: u32,
        /// Width of the hidden states.
        hidden: usize,
    },
}

/// The result type of this module.
pub(crate) type Result<T, E = CaptureError> = std::result::Result<T, E>;

/// Returns the error for a file that cannot be read or written.
pub(super) fn io_error(path: &std::path::Path) -> impl Fn(std::io::Error) -> CaptureError + '_ {
    |source| CaptureError::Io {
        path: path.to_owned(),
        source,
    }
}
