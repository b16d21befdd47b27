//! Making targets: [`scenes`], tiny ones that tell drawn scenes, and [`pictures`], pretrained language
//! models that learn to see.
//!
//! Each is a [`Course`] of lessons for one loop, the [`Trainer`].

mod checkpoint;
mod course;
mod cross_entropy;
pub mod pictures;
pub mod scenes;
mod trainer;

pub use course::{Course, LessonLoss, LoopSettings, Pace};
pub use trainer::{TargetObserver, TargetStep, Trainer};
