//! Captures: the samples that drafts are trained on, with the vectors that a target computed for
//! them.
//!
//! A capture is a directory: `capture.json` lists its contents, and shards hold the samples as
//! safetensors. [`CaptureWriter`] writes a capture and survives a kill at any moment;
//! [`CaptureReader`] reads samples by index, one at a time; [`merge`] merges the shares of several
//! machines.
//!
//! ```text
//! sample ─► pending/00000017.safetensors ─► shard-00000000.safetensors ─► capture.json
//!           one finished sample             all samples of its range      lists finished shards
//! ```
//!
//! At each arrow, a file is written under a temporary name and renamed. Files on the left are
//! removed only after the file on the right exists.

mod budget;
mod elements;
mod embeddings;
mod error;
mod fingerprint;
mod grouped;
mod header;
mod manifest;
mod merge;
mod positions;
mod reader;
mod record;
mod sample;
mod share;
mod source;
mod tensor_file;
mod token_sample;
mod vectors;
mod whole_file;
mod writer;

pub use budget::{DISK_BYTES, PAPER_SAMPLES, SampleSize};
pub use embeddings::{ImageFeatures, TokenEmbeddings};
pub use error::CaptureError;
pub use fingerprint::fingerprint;
pub use header::{
    CaptureHeader, CaptureStage, ElementType, PromptForm, SourceFile, SourceIdentity, StorageKind,
    TargetIdentity,
};
pub use manifest::{LeftOut, LeftOutKind, Manifest, ShardEntry, ShardSample};
pub use merge::merge;
pub use positions::PositionRange;
pub use reader::CaptureReader;
pub use record::{ImageRecord, SampleRecord};
pub use sample::{CapturedSample, SampleVectors};
pub use share::Share;
pub use source::{SampleSource, answer_tokens};
pub use token_sample::TokenSample;
pub use writer::CaptureWriter;
