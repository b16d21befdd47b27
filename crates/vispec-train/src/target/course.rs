//! What is taught, as the loop sees it.

use std::fmt;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::TrainError;
use crate::network::{Parameters, Trainable};
use crate::optimizer::AdamWSettings;

/// What the loop takes from a config.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoopSettings {
    /// Largest absolute value of an element of a gradient.
    pub clip_value: f64,
    /// Lessons whose gradients are computed side by side, each by one thread.
    pub workers: usize,
    /// Steps between saved states.
    pub save_every: usize,
    /// AdamW.
    pub adamw: AdamWSettings,
}

/// How a stage goes on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Steps.
    pub steps: usize,
    /// Lessons of a step.
    pub batch_size: usize,
    /// The highest learning rate; it falls linearly to zero.
    pub learning_rate: f64,
    /// Steps of linear warm-up.
    pub warmup_steps: usize,
}

impl Pace {
    /// Linear warm-up, then linear decay to zero at the end.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "few steps")]
    pub fn learning_rate_at(&self, step: usize) -> f64 {
        let warm = (step + 1) as f64 / (self.warmup_steps + 1) as f64;
        let left = (self.steps - step) as f64
            / (self.steps - self.warmup_steps.min(self.steps - 1)) as f64;
        self.learning_rate * warm.min(left).min(1.0)
    }
}

/// What a network makes of a lesson.
#[derive(Debug)]
pub struct LessonLoss {
    /// The lesson, for messages.
    pub id: String,
    /// `[1]`
    pub loss: Tensor<1>,
}

/// Lessons in stages, and what becomes of the network between them. Everything is a function of the
/// config and of numbers of lessons, so that runs can be interrupted.
pub trait Course: fmt::Debug + Sync + Sized {
    /// Everything that decides the outcome.
    type Config: Clone + fmt::Debug + PartialEq + Serialize + DeserializeOwned;
    /// What is trained.
    type Network: Trainable + Clone + fmt::Debug + Send + Sync;
    /// What is found out at the end of a stage.
    type Judgement: Serialize;

    /// Reads what lessons are made of.
    ///
    /// # Errors
    /// A setting that cannot be used; any error of reading files.
    fn open(config: &Self::Config, device: &Device) -> Result<Self, TrainError>;

    /// What the loop takes from `config`.
    fn settings(config: &Self::Config) -> LoopSettings;

    /// Each stage's pace.
    fn paces(config: &Self::Config) -> Vec<Pace>;

    /// The device of the lessons, without a graph.
    fn device(&self) -> &Device;

    /// Hash of what lessons are made of, besides the config.
    ///
    /// # Errors
    /// Any error of reading it.
    fn identity(&self) -> Result<String, TrainError>;

    /// Parameters that a stage starts with: of those that the stage before ended with, or of
    /// nothing.
    ///
    /// # Errors
    /// Any error of reading or making them.
    fn enter(&self, stage: usize, before: Option<Parameters>) -> Result<Parameters, TrainError>;

    /// The network of a stage.
    fn build(&self, stage: usize, parameters: &Parameters) -> Self::Network;

    /// The loss of lesson `number` of a stage.
    ///
    /// # Errors
    /// Any error of making the lesson.
    fn loss(
        &self,
        network: &Self::Network,
        stage: usize,
        number: u64,
    ) -> Result<LessonLoss, TrainError>;

    /// Writes what a stage ended with below `out`, and judges it; the network's passes keep nothing
    /// in memory.
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
