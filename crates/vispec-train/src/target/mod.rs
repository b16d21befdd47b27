//! Training of targets: [`scenes`], tiny targets that describe drawn scenes, and [`pictures`],
//! pretrained language models that learn to see.
//!
//! Each is a [`Course`] of lessons, which the [`Trainer`] runs.

mod checkpoint;
mod course;
mod cross_entropy;
pub mod pictures;
pub mod scenes;
mod trainer;

pub use course::{Course, LessonLoss, LoopSettings, Pace};
pub use trainer::{TargetObserver, TargetStep, Trainer};
