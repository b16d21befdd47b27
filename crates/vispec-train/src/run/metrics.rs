//! What a run reports, one JSON object per line.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::held_out::HeldOut;
use crate::data::Refusal;
use crate::error::TrainError;
use crate::files;
use crate::step::Losses;

/// Name of the file.
pub(crate) const METRICS_FILE: &str = "metrics.jsonl";

/// A step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// From 0.
    pub epoch: usize,
    /// From 0, through all epochs.
    pub step: usize,
    /// The learning rate.
    pub learning_rate: f64,
    /// Losses, means over the batches of the step; none if every sample was refused.
    pub losses: Option<Losses>,
    /// Tokens of the step per second, reading samples included.
    pub tokens_per_second: f64,
    /// Where the time went with several ranks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranks: Option<RankTimes>,
}

/// What the first rank did until the gradients of all were added up, as shares of that time; the rest
/// is its own batches.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RankTimes {
    /// Waiting for the rank whose batches took longest.
    pub waiting: f64,
    /// Adding up gradients from rank to rank.
    pub exchanging: f64,
}

/// An epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// From 0.
    pub epoch: usize,
    /// Steps done in all.
    pub step: usize,
    /// Means over the batches of the epoch, with noise, while parameters moved.
    pub train: Option<Losses>,
    /// Samples that were refused.
    pub refused: BTreeMap<String, Refusal>,
    /// On held-out samples, if there are any.
    pub held_out: Option<HeldOut>,
    /// Whether no epoch before drafted better.
    pub best: bool,
}

/// A line of the metrics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum MetricsRecord {
    /// A step.
    Step(StepRecord),
    /// An epoch.
    Epoch(Box<EpochRecord>),
}

/// The file under way.
#[derive(Debug)]
pub(crate) struct Metrics {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Metrics {
    /// Opens the file in `dir` and drops what is behind `len`: steps that are done once more.
    pub(crate) fn open(dir: &Path, len: u64) -> Result<Self, TrainError> {
        let path = dir.join(METRICS_FILE);
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).read(true).write(true);
        let mut file = file.open(&path).map_err(files::at(&path))?;
        let found = file.metadata().map_err(files::at(&path))?.len();
        if found < len {
            return Err(TrainError::Checkpoint {
                path,
                reason: format!("{found} bytes, but the state was saved when there were {len}"),
            });
        }
        file.set_len(len).map_err(files::at(&path))?;
        file.seek(SeekFrom::End(0)).map_err(files::at(&path))?;
        Ok(Self { path, file, len })
    }

    /// Appends a line.
    pub(crate) fn write(&mut self, record: &impl Serialize) -> Result<(), TrainError> {
        let line = serde_json::to_string(record).map_err(|error| TrainError::Checkpoint {
            path: self.path.clone(),
            reason: error.to_string(),
        })?;
        let line = format!("{line}\n");
        self.file
            .write_all(line.as_bytes())
            .map_err(files::at(&self.path))?;
        self.len += line.len() as u64;
        Ok(())
    }

    /// Bytes until now.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }
}
