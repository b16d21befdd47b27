//! Making targets: [`scenes`], tiny ones that tell drawn scenes.
//!
//! Each is a [`Course`] of lessons for one loop, the [`Trainer`].

mod course;
mod cross_entropy;
pub mod scenes;
mod trainer;

pub use course::{Course, LessonLoss, LoopSettings, Pace};
pub use trainer::{TargetObserver, TargetStep, Trainer};
