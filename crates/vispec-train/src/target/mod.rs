//! Making tiny targets: a small vision-language model is given more layers and is taught to tell
//! drawn scenes of few and of many image tokens.
//!
//! The vision tower and the embedding stay those of the model that is started from.

mod config;
mod cross_entropy;
mod export;
mod judge;
mod lessons;
mod start;
mod trainer;

pub use config::{MakeTargetConfig, SceneSettings, Stage};
pub use judge::Judgement;
pub use lessons::{Lesson, Teacher};
pub use start::TargetStart;
pub use trainer::{TargetObserver, TargetStep, TargetTrainer};
