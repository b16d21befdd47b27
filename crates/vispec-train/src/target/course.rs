//! Courses: the interface between what is taught and the training loop.

use std::fmt;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{TrainError, above_zero, at_least};
use crate::network::{Parameters, Trainable};
use crate::optimizer::AdamWSettings;

/// Settings of the training loop, which all stages share.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoopSettings {
    /// Maximum absolute value of a gradient's element; larger ones are clipped.
    pub clip_value: f64,
    /// Number of lessons whose gradients are computed in parallel, each by one thread.
    pub workers: usize,
    /// Number of steps between saved states.
    pub save_every: usize,
    /// Settings of AdamW.
    #[serde(default)]
    pub adamw: AdamWSettings,
}

impl LoopSettings {
    /// Checks all values, and those of the stages, which are called `training` and `stage.pace` in
    /// messages.
    ///
    /// # Errors
    /// [`TrainError::Setting`] with the first value that cannot be used.
    pub(super) fn check(&self, paces: &[Pace]) -> Result<(), TrainError> {
        let counts = [
            ("training.workers", self.workers),
            ("training.save_every", self.save_every),
            ("stage", paces.len()),
        ];
        for (field, count) in counts {
            at_least(field, count, 1)?;
        }
        for pace in paces {
            at_least("stage.pace.steps", pace.steps, 1)?;
            at_least("stage.pace.batch_size", pace.batch_size, 1)?;
            above_zero("stage.pace.learning_rate", pace.learning_rate)?;
        }
        above_zero("training.clip_value", self.clip_value)
    }
}

/// Length, batch size and learning rate of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// Number of steps.
    pub steps: usize,
    /// Lessons per step.
    pub batch_size: usize,
    /// The peak learning rate, which decays linearly to zero.
    pub learning_rate: f64,
    /// Number of steps of linear warm-up.
    pub warmup_steps: usize,
}

impl Pace {
    /// Returns the learning rate of a step: linear warm-up, then linear decay to zero at the end.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "few steps")]
    pub fn learning_rate_at(&self, step: usize) -> f64 {
        let warm = (step + 1) as f64 / (self.warmup_steps + 1) as f64;
        let left = (self.steps - step) as f64
            / (self.steps - self.warmup_steps.min(self.steps - 1)) as f64;
        self.learning_rate * warm.min(left).min(1.0)
    }
}

/// The loss of a network on a lesson.
#[derive(Debug)]
pub struct LessonLoss {
    /// Id of the lesson, for messages.
    pub id: String,
    /// The loss `[1]`.
    pub loss: Tensor<1>,
}

/// Lessons in stages, and the transitions of the network between stages. Everything is a function
/// of the config and of the lessons' numbers, so that runs can be interrupted and resumed.
pub trait Course: fmt::Debug + Sync + Sized {
    /// Everything that determines the outcome.
    type Config: Clone + fmt::Debug + Serialize + DeserializeOwned;
    /// The network to train.
    type Network: Trainable + Clone + fmt::Debug + Send + Sync;
    /// Results of the evaluation at the end of a stage.
    type Judgement: Serialize;

    /// Opens the sources of the lessons.
    ///
    /// # Errors
    /// [`TrainError::Setting`] for a setting that cannot be used, and any error of reading files.
    fn open(config: &Self::Config, device: &Device) -> Result<Self, TrainError>;

    /// Returns the settings of the loop in `config`.
    fn settings(config: &Self::Config) -> LoopSettings;

    /// Returns the pace of each stage.
    fn paces(config: &Self::Config) -> Vec<Pace>;

    /// Returns the device of the lessons, without automatic differentiation.
    fn device(&self) -> &Device;

    /// Returns a hash of the sources of the lessons, not including the config.
    ///
    /// # Errors
    /// Any error of reading the sources.
    fn identity(&self) -> Result<String, TrainError>;

    /// Returns the initial parameters of a stage, derived from the final parameters `before` of the
    /// stage before it. The first stage has none before it.
    ///
    /// # Errors
    /// Any error of reading or making the parameters.
    fn enter(&self, stage: usize, before: Option<Parameters>) -> Result<Parameters, TrainError>;

    /// Builds the network of a stage.
    fn build(&self, stage: usize, parameters: &Parameters) -> Self::Network;

    /// Computes the loss of lesson `number` of a stage.
    ///
    /// # Errors
    /// Any error of making the lesson.
    fn loss(
        &self,
        network: &Self::Network,
        stage: usize,
        number: u64,
    ) -> Result<LessonLoss, TrainError>;

    /// Writes the results of a stage below `out`, and evaluates the network. The network is frozen,
    /// so its passes keep no intermediate values.
    ///
    /// # Errors
    /// Any error of writing files and of making lessons.
    fn close(
        &self,
        stage: usize,
        ended: (&Self::Network, &Parameters),
        out: &Path,
    ) -> Result<Vec<Self::Judgement>, TrainError>;
}
