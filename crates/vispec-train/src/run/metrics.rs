//! Metrics of a run, one JSON object per line.

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

/// Name of the metrics file.
pub(crate) const METRICS_FILE: &str = "metrics.jsonl";

/// Metrics of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Number of the epoch, from 0.
    pub epoch: usize,
    /// Number of the step from 0, counted through all epochs.
    pub step: usize,
    /// The learning rate.
    pub learning_rate: f64,
    /// Losses as means over the batches of the step; `None` if every sample was refused.
    pub losses: Option<Losses>,
    /// Tokens per second, including the time to read samples.
    pub tokens_per_second: f64,
    /// How the time was spent, with several ranks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranks: Option<RankTimes>,
}

/// How the first rank spent the time until the gradients of all ranks were added up, as shares of
/// that time. The rest was spent on its own batches.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RankTimes {
    /// Waiting for the rank whose batches took longest.
    pub waiting: f64,
    /// Adding up gradients across ranks.
    pub exchanging: f64,
}

/// Metrics of an epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Number of the epoch, from 0.
    pub epoch: usize,
    /// Number of steps done in all epochs.
    pub step: usize,
    /// Training losses as means over the steps of the epoch, with noise, while parameters changed.
    pub train: Option<Losses>,
    /// Refused samples, with the reasons.
    pub refused: BTreeMap<String, Refusal>,
    /// Evaluation on held-out samples, if there are any.
    pub held_out: Option<HeldOut>,
    /// Whether this is the best draft so far.
    pub best: bool,
}

/// A line of the metrics file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum MetricsRecord {
    /// A step.
    Step(StepRecord),
    /// An epoch.
    Epoch(Box<EpochRecord>),
}

/// The open metrics file.
#[derive(Debug)]
pub(crate) struct Metrics {
    path: PathBuf,
    file: File,
    len: u64,
}

impl Metrics {
    /// Opens the file in `dir` and truncates it to `len`: the steps after that are repeated.
    pub(crate) fn open(dir: &Path, len: u64) -> Result<Self, TrainError> {
        let path = dir.join(METRICS_FILE);
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).read(true).write(true);
        let mut file = file.open(&path).map_err(files::at(&path))?;
        let found = file.metadata().map_err(files::at(&path))?.len();
        if found < len {
            return Err(TrainError::Checkpoint {
                path,
                reason: format!("{found} bytes, but it had {len} when the state was saved"),
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

    /// Returns the current length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }
}
