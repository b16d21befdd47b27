//! What can go wrong with captures.

use std::path::PathBuf;

use super::share::PositionRange;

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
    /// A file is not what its name says.
    #[error("{path}: damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// A capture was written by another version of this program.
    #[error("{path}: capture format {found}, expected {expected}")]
    Version {
        /// The manifest.
        path: PathBuf,
        /// Its version.
        found: u64,
        /// The version that is read.
        expected: u32,
    },
    /// What is to be captured or read differs from what the capture holds.
    #[error("{path}: {field} is {found}, expected {expected}")]
    Mismatch {
        /// The manifest.
        path: PathBuf,
        /// The field in which they differ.
        field: String,
        /// Its value in the file.
        found: String,
        /// The value that was asked for.
        expected: String,
    },
    /// A shard has another length than the manifest says.
    #[error("{path}: {found} bytes, expected {expected}; the file was cut short or replaced")]
    ShardLength {
        /// The shard.
        path: PathBuf,
        /// Bytes of the file.
        found: u64,
        /// Bytes that the manifest names.
        expected: u64,
    },
    /// A shard has other content than the manifest says.
    #[error("{path}: sha256 {found}, expected {expected}")]
    ShardHash {
        /// The shard.
        path: PathBuf,
        /// Hash of the file.
        found: String,
        /// Hash that the manifest names.
        expected: String,
    },
    /// Another process writes the same capture.
    #[error("{path}: another process writes this capture")]
    Locked {
        /// The lock.
        path: PathBuf,
    },
    /// A sample cannot be stored as it is.
    #[error("sample {id}: {what} has {found} rows, expected {expected}")]
    SampleShape {
        /// The sample.
        id: String,
        /// Which of its parts is at fault.
        what: &'static str,
        /// What it has.
        found: usize,
        /// What it should have.
        expected: usize,
    },
    /// A value is too large for the element type that it is stored in, or not finite.
    #[error("sample {id}: {what} holds {found}, which {dtype} cannot hold")]
    NotFinite {
        /// The sample.
        id: String,
        /// Which of its parts is at fault.
        what: &'static str,
        /// The value.
        found: f32,
        /// The element type.
        dtype: &'static str,
    },
    /// A position is outside of what a capture covers.
    #[error("position {position} is not in {range}")]
    Position {
        /// The position.
        position: usize,
        /// What is covered.
        range: PositionRange,
    },
    /// There are fewer samples.
    #[error("{dir}: there is no sample {index}, the capture has {len}")]
    NoSample {
        /// The capture.
        dir: PathBuf,
        /// The index that was asked for, from 0.
        index: usize,
        /// Number of samples.
        len: usize,
    },
    /// A capture was not finished.
    #[error("{dir}: {missing} of {expected} positions are not captured; run the capture again")]
    Unfinished {
        /// The capture.
        dir: PathBuf,
        /// Positions that are not there.
        missing: usize,
        /// Positions that should be there.
        expected: usize,
    },
    /// Several captures cannot be one.
    #[error("{path}: covers {found}, which {other} covers already")]
    Overlap {
        /// One manifest.
        path: PathBuf,
        /// The positions in question.
        found: PositionRange,
        /// The other manifest.
        other: PathBuf,
    },
    /// Merged captures leave a gap.
    #[error("the captures cover {found} of {expected}; {missing} is in none of them")]
    Gap {
        /// Positions that are covered.
        found: usize,
        /// All positions of the range.
        expected: PositionRange,
        /// The first positions that are not.
        missing: PositionRange,
    },
    /// A share that makes no sense.
    #[error("share {found:?}, expected I/N with I from 1 to N")]
    ShareSyntax {
        /// What was given.
        found: String,
    },
    /// Samples of this storage need more than the capture to be completed.
    #[error("{dir}: samples are stored as {found}; {advice}")]
    NeedsMore {
        /// The capture.
        dir: PathBuf,
        /// Storage kind.
        found: &'static str,
        /// What the reader lacks.
        advice: &'static str,
    },
    /// An image of a sample is not the one that was captured.
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
    /// Image features, which packed captures do not hold, could not be computed again.
    #[error("sample {id} ({origin}): computing its image features: {source}")]
    ImageFeatures {
        /// The sample.
        id: String,
        /// File and row that it was made of.
        origin: String,
        /// What failed.
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

/// Short form used in this module.
pub(crate) type Result<T, E = CaptureError> = std::result::Result<T, E>;

/// The error for a file that cannot be read or written.
pub(super) fn io_error(path: &std::path::Path) -> impl Fn(std::io::Error) -> CaptureError + '_ {
    |source| CaptureError::Io {
        path: path.to_owned(),
        source,
    }
}
