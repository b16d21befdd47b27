//! The state of a run, in a single file that is written atomically.

use std::collections::BTreeMap;
use std::path::Path;

use bytemuck::pod_collect_to_vec;
use safetensors::SafeTensors;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::held_out::LossSums;
use crate::config::TrainConfig;
use crate::data::Refusal;
use crate::error::TrainError;
use crate::files;
use crate::network::{DraftShape, HostTensor, Parameters, Trainable};
use crate::optimizer::{Moments, Optimizer};
use crate::ranks::Ranks;

/// Name of the state file.
pub const STATE_FILE: &str = "state.safetensors";

/// Key of the metadata entry that holds the progress.
const PROGRESS: &str = "progress";

/// The progress of a run, as stored in its state.
pub(crate) trait RunProgress: Serialize + DeserializeOwned {
    /// Returns the number of updates of each parameter.
    fn updates(&mut self) -> &mut BTreeMap<String, usize>;
}

/// The best epoch so far.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Best {
    /// The epoch, from 0.
    pub epoch: usize,
    /// Simulated tau of dynamic trees.
    pub tree_tau: f64,
}

/// The progress of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The config that the run was started with.
    pub config: TrainConfig,
    /// [`SampleSource::identity`](vispec_data::capture::SampleSource::identity) of the data.
    pub data: String,
    /// The current epoch, from 0.
    pub epoch: usize,
    /// Number of steps done in the current epoch.
    pub step_in_epoch: usize,
    /// Number of steps done in all epochs.
    pub step: usize,
    /// Losses of the current epoch.
    pub losses: LossSums,
    /// Refused samples of the current epoch.
    pub refused: BTreeMap<String, Refusal>,
    /// The best epoch so far.
    pub best: Option<Best>,
    /// Length in bytes of the metrics file when this state was saved.
    pub metrics_bytes: u64,
    /// Number of updates of each parameter.
    pub updates: BTreeMap<String, usize>,
}

impl Progress {
    /// Returns the progress at the start of a run of `config` on `data`.
    pub(super) fn new(config: TrainConfig, data: String) -> Self {
        Self {
            config,
            data,
            epoch: 0,
            step_in_epoch: 0,
            step: 0,
            losses: LossSums::default(),
            refused: Default::default(),
            best: None,
            metrics_bytes: 0,
            updates: Default::default(),
        }
    }
}

/// The state of a run.
#[derive(Debug)]
pub(crate) struct State<P> {
    pub(crate) progress: P,
    pub(crate) parameters: Parameters,
    pub(crate) moments: BTreeMap<String, Moments>,
}

impl<P: RunProgress> State<P> {
    /// Collects the current state of a run.
    ///
    /// # Errors
    /// [`TrainError::Device`] if tensors cannot be read back.
    pub(crate) fn of(
        progress: &P,
        network: &impl Trainable,
        optimizer: &Optimizer,
    ) -> Result<Self, TrainError>
    where
        P: Clone,
    {
        Ok(Self {
            progress: progress.clone(),
            parameters: network.parameters()?,
            moments: optimizer.moments()?,
        })
    }
}

/// Returns a hash of everything that steps change: parameters and moments.
pub(crate) fn weights_hash(parameters: &Parameters, moments: &BTreeMap<String, Moments>) -> String {
    let mut hash = Xxh3::new();
    let mut add = |name: &str, tensor: &HostTensor| {
        hash.update(name.as_bytes());
        hash.update(bytemuck::cast_slice(&tensor.values));
    };
    for (name, tensor) in parameters {
        add(name, tensor);
    }
    for (name, moments) in moments {
        add(name, &moments.first);
        add(name, &moments.second);
    }
    format!("{:032x}", hash.digest128())
}

impl<P> State<P> {
    /// Fails unless all ranks have the same parameters and moments; `steps` is for the message.
    ///
    /// # Errors
    /// [`TrainError::Ranks`] if they differ.
    pub(crate) fn require_equal(&self, ranks: &Ranks, steps: usize) -> Result<(), TrainError> {
        ranks.require_equal(
            || Ok(weights_hash(&self.parameters, &self.moments)),
            |first, own| {
                format!(
                    "after {steps} steps the hash of the weights is {own}, but {first} on rank 0; \
                     the state was not saved"
                )
            },
        )
    }
}

impl RunProgress for Progress {
    fn updates(&mut self) -> &mut BTreeMap<String, usize> {
        &mut self.updates
    }
}

impl State<Progress> {
    /// Fails unless the state belongs to this run.
    pub(super) fn check(
        &self,
        dir: &Path,
        config: &TrainConfig,
        data: &str,
        shape: &DraftShape,
    ) -> Result<(), TrainError> {
        let path = dir.join(STATE_FILE);
        let other_data = self.progress.data != data;
        let difference = config_difference(&self.progress.config, config)
            .or_else(|| other_data.then(|| "the data differ".to_owned()));
        if let Some(difference) = difference {
            return Err(TrainError::OtherRun { path, difference });
        }
        let expected = shape.parameters();
        for (name, dims) in &expected {
            let found = self.parameters.get(name).map(|tensor| &tensor.shape);
            if found != Some(dims) {
                return Err(TrainError::Checkpoint {
                    path,
                    reason: format!("{name} has shape {found:?}, expected {dims:?}"),
                });
            }
        }
        Ok(())
    }
}

impl<P: RunProgress> State<P> {
    /// Writes the state, replacing an older one.
    pub(crate) fn write(self, dir: &Path) -> Result<(), TrainError> {
        let Self {
            mut progress,
            parameters,
            moments,
        } = self;
        let mut tensors: Parameters = parameters
            .into_iter()
            .map(|(name, tensor)| (format!("weights.{name}"), tensor))
            .collect();
        progress.updates().clear();
        for (name, moments) in moments {
            progress.updates().insert(name.clone(), moments.updates);
            tensors.insert(format!("moment_1.{name}"), moments.first);
            tensors.insert(format!("moment_2.{name}"), moments.second);
        }
        let path = dir.join(STATE_FILE);
        // TOML, because it preserves every float exactly.
        let text = toml::to_string(&progress).map_err(|error| TrainError::Checkpoint {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let tensors = tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor.into()));
        files::write_tensors(&path, tensors, (PROGRESS, text))
    }

    /// Reads the state in `dir`, if there is one.
    pub(crate) fn read(dir: &Path) -> Result<Option<Self>, TrainError> {
        let path = dir.join(STATE_FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(TrainError::Io { path, source }),
        };
        let damaged = |reason: String| TrainError::Checkpoint {
            path: path.clone(),
            reason,
        };
        let (_, header) =
            SafeTensors::read_metadata(&bytes).map_err(|error| damaged(error.to_string()))?;
        let text = header
            .metadata()
            .as_ref()
            .and_then(|metadata| metadata.get(PROGRESS))
            .ok_or_else(|| damaged(format!("no metadata {PROGRESS:?}: not the state of a run")))?;
        let progress: P = toml::from_str(text).map_err(|error| damaged(error.to_string()))?;
        let tensors =
            SafeTensors::deserialize(&bytes).map_err(|error| damaged(error.to_string()))?;
        let mut state = Self {
            progress,
            parameters: Parameters::new(),
            moments: BTreeMap::new(),
        };
        for (name, view) in tensors.iter() {
            let tensor = HostTensor {
                shape: view.shape().to_vec(),
                values: pod_collect_to_vec(view.data()),
            };
            state.insert(name, tensor).map_err(damaged)?;
        }
        Ok(Some(state))
    }

    fn insert(&mut self, name: &str, tensor: HostTensor) -> Result<(), String> {
        let (part, name) = name.split_once('.').unwrap_or((name, ""));
        if part == "weights" {
            self.parameters.insert(name.to_owned(), tensor);
            return Ok(());
        }
        let updates = self.progress.updates().get(name).copied();
        let moments = self.moments.entry(name.to_owned()).or_default();
        moments.updates = updates.ok_or_else(|| format!("no update count for {name:?}"))?;
        match part {
            "moment_1" => moments.first = tensor,
            "moment_2" => moments.second = tensor,
            _ => return Err(format!("unexpected tensor {part}.{name}")),
        }
        Ok(())
    }
}

/// Describes the first difference between the config of a run, as it is saved, and the one that it
/// is resumed with.
pub(crate) fn config_difference<C: Serialize>(before: &C, now: &C) -> Option<String> {
    let value = |config: &C| toml::Value::try_from(config).ok();
    let Some((before, now)) = value(before).zip(value(now)) else {
        return Some("the configs cannot be compared".to_owned());
    };
    let Difference { path, values } = first_difference(&before, &now)?;
    Some(format!("{path} was {}, now {}", values[0], values[1]))
}

/// A setting in which two configs differ.
#[derive(Debug, PartialEq)]
pub(crate) struct Difference {
    /// The setting, with dots between levels.
    pub(crate) path: String,
    /// The values in both configs.
    pub(crate) values: [String; 2],
}

/// Returns the first setting in which two configs differ.
pub(crate) fn first_difference(one: &toml::Value, other: &toml::Value) -> Option<Difference> {
    difference_below("", one, other)
}

fn difference_below(path: &str, one: &toml::Value, other: &toml::Value) -> Option<Difference> {
    if one == other {
        return None;
    }
    let (Some(tables), Some(others)) = (one.as_table(), other.as_table()) else {
        return Some(Difference {
            path: path.to_owned(),
            values: [one, other].map(toml::Value::to_string),
        });
    };
    let names = tables.keys().chain(others.keys());
    let absent = toml::Value::String("not there".to_owned());
    names
        .filter_map(|name| {
            let at = |table: &toml::Table| table.get(name).cloned().unwrap_or(absent.clone());
            let inner = if path.is_empty() {
                name.clone()
            } else {
                format!("{path}.{name}")
            };
            difference_below(&inner, &at(tables), &at(others))
        })
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_setting_that_differs_is_named() {
        let value = |text: &str| toml::Value::Table(toml::from_str(text).unwrap());
        let before = value("seed = 1\n[data]\nbatch_size = 2\nmax_len = 7\n");
        let now = value("seed = 1\n[data]\nbatch_size = 4\nmax_len = 7\n");
        assert_eq!(config_difference(&before, &before), None);
        let named = config_difference(&before, &now).unwrap();
        assert_eq!(named, "data.batch_size was 2, now 4");
        let named = config_difference(&before, &value("seed = 1\n")).unwrap();
        assert!(named.starts_with("data was "), "{named}");
    }
}
