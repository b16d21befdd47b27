//! Evaluation tasks as data: prompts about images, and the rows they come from.

mod bad_rows;
mod check;
mod definition;
mod frames;
pub mod listing;
mod prompt;
mod read_options;
mod registry;
mod sample;
mod samples;
mod selection;
mod subset;
mod template;

pub use check::{CheckReport, FileStatus};
pub use definition::{PixelLimits, TaskDefinition};
pub use read_options::{ImageCheck, ReadOptions, Shortage};
pub use registry::TaskRegistry;
pub use sample::Sample;
pub use samples::TaskSamples;
