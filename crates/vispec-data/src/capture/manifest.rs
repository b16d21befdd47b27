//! `capture.json`: the contents of a capture.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::budget::SampleSize;
use super::error::{CaptureError, Result, io_error};
use super::header::{CaptureHeader, FORMAT_VERSION};
use super::positions::PositionRange;
use super::token_sample::TokenSample;
use super::whole_file::write_whole;

const FORMAT: &str = "vispec-capture";

/// A position without a sample.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeftOut {
    /// The position.
    pub position: usize,
    /// Whether the row was dropped or is broken.
    pub kind: LeftOutKind,
    /// The reason, with file and row.
    pub reason: String,
}

/// Why a row gives no sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeftOutKind {
    /// A valid row that cannot be trained on.
    Dropped,
    /// A broken row, or a row with a broken image.
    Bad,
}

/// A sample of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardSample {
    /// Its position.
    pub position: usize,
    /// The publisher's id.
    pub id: String,
    /// Length of the sequence.
    pub tokens: usize,
    /// Number of image tokens among them.
    pub image_tokens: usize,
    /// Number of contiguous runs of image tokens.
    pub image_runs: usize,
}

impl ShardSample {
    pub(super) fn new(position: usize, sample: &TokenSample) -> Self {
        let mask = &sample.image_mask;
        let ends = (0..mask.len()).filter(|&row| mask[row] && mask.get(row + 1) != Some(&true));
        Self {
            position,
            id: sample.record.id.clone(),
            tokens: sample.token_ids.len(),
            image_tokens: mask.iter().filter(|&&is_image| is_image).count(),
            image_runs: ends.count(),
        }
    }
}

/// A finished shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardEntry {
    /// Name of the file.
    pub file: String,
    /// Positions that it covers.
    pub positions: PositionRange,
    /// Length of the file in bytes.
    pub bytes: u64,
    /// Hash of the file.
    pub sha256: String,
    /// Its samples, ordered by position.
    pub samples: Vec<ShardSample>,
    /// Positions without a sample.
    pub left_out: Vec<LeftOut>,
}

/// The contents of a capture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    format: String,
    version: u32,
    /// The part that all shares of the capture have in common.
    pub header: CaptureHeader,
    /// Positions that this capture is to cover: a share, or the whole range after a merge.
    pub covers: PositionRange,
    /// Finished shards, ordered by position.
    pub shards: Vec<ShardEntry>,
}

impl Manifest {
    pub(super) fn new(header: CaptureHeader, covers: PositionRange) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: FORMAT_VERSION,
            header,
            covers,
            shards: Vec::new(),
        }
    }

    /// Returns the path of the manifest of a capture.
    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join("capture.json")
    }

    /// Reads the manifest of the capture in `dir`; returns `None` if there is none.
    pub(super) fn read_if_present(dir: &Path) -> Result<Option<Self>> {
        let path = Self::path(dir);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(&path)(error)),
        };
        let damaged = |reason: String| CaptureError::Damaged {
            path: path.clone(),
            reason,
        };
        let value: Value =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if value["format"] != FORMAT {
            return Err(damaged(format!(
                "format {}, expected {FORMAT:?}",
                value["format"]
            )));
        }
        // Check the version first: any field may differ in another version.
        if value["version"] != FORMAT_VERSION {
            return Err(CaptureError::Version {
                found: value["version"].as_u64().unwrap_or_default(),
                expected: FORMAT_VERSION,
                path,
            });
        }
        let manifest: Self =
            serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
        let is_plain = |shard: &ShardEntry| Path::new(&shard.file).components().count() == 1;
        if let Some(shard) = manifest.shards.iter().find(|shard| !is_plain(shard)) {
            return Err(damaged(format!(
                "shard {:?} is not a file name",
                shard.file
            )));
        }
        Ok(Some(manifest))
    }

    /// Reads the manifest of the capture in `dir`.
    ///
    /// # Errors
    /// [`CaptureError::NoCapture`], [`CaptureError::Version`], [`CaptureError::Damaged`] or
    /// [`CaptureError::Io`].
    pub fn read(dir: &Path) -> Result<Self> {
        Self::read_if_present(dir)?.ok_or_else(|| CaptureError::NoCapture {
            dir: dir.to_owned(),
        })
    }

    pub(super) fn write(&self, dir: &Path) -> Result<()> {
        let path = Self::path(dir);
        write_whole(&path, |file| {
            let failed = io_error(&path);
            serde_json::to_writer_pretty(&mut *file, self).map_err(|error| failed(error.into()))?;
            file.write_all(b"\n").map_err(failed)
        })
    }

    /// Inserts a finished shard in order.
    pub(super) fn add(&mut self, shard: ShardEntry) {
        let place = self
            .shards
            .partition_point(|other| other.positions < shard.positions);
        self.shards.insert(place, shard);
    }

    /// Returns an error if the header differs from `expected`.
    pub(super) fn check_header(&self, dir: &Path, expected: &CaptureHeader) -> Result<()> {
        match expected.difference(&self.header) {
            None => Ok(()),
            Some((field, found, expected)) => Err(CaptureError::Mismatch {
                path: Self::path(dir),
                field,
                found,
                expected,
            }),
        }
    }

    /// Returns whether any sample in finished shards has images.
    #[must_use]
    pub fn has_images(&self) -> bool {
        let mut samples = self.shards.iter().flat_map(|shard| &shard.samples);
        samples.any(|sample| sample.image_tokens > 0)
    }

    /// Returns the number of samples in finished shards.
    #[must_use]
    pub fn n_samples(&self) -> usize {
        self.shards.iter().map(|shard| shard.samples.len()).sum()
    }

    /// Returns the number of tokens of all samples in finished shards.
    #[must_use]
    pub fn n_tokens(&self) -> usize {
        let samples = self.shards.iter().flat_map(|shard| &shard.samples);
        samples.map(|sample| sample.tokens).sum()
    }

    /// Returns the mean size of the samples in finished shards, rounded down.
    #[must_use]
    pub fn mean_size(&self) -> SampleSize {
        let mean = |count: fn(&ShardSample) -> usize| {
            let samples = self.shards.iter().flat_map(|shard| &shard.samples);
            samples.map(count).sum::<usize>() / self.n_samples().max(1)
        };
        SampleSize {
            text: mean(|sample| sample.tokens - sample.image_tokens.min(sample.tokens)),
            image: mean(|sample| sample.image_tokens),
            images: mean(|sample| sample.image_runs),
            states: self.header.states.len(),
        }
    }

    /// Returns the total size of finished shards in bytes.
    #[must_use]
    pub fn n_bytes(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes).sum()
    }

    /// Returns the number of positions that no finished shard covers.
    #[must_use]
    pub fn n_missing(&self) -> usize {
        let covered: usize = self.shards.iter().map(|shard| shard.positions.len()).sum();
        self.covers.len().saturating_sub(covered)
    }

    /// Returns all positions without a sample.
    pub fn left_out(&self) -> impl Iterator<Item = &LeftOut> {
        self.shards.iter().flat_map(|shard| &shard.left_out)
    }
}
