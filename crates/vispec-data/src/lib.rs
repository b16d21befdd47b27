//! Evaluation tasks and training conversations for vision-language models, captured samples, and
//! synthetic scenes. No tensor library.
//!
//! A task is data: a short TOML file says which files it reads, how a row becomes a prompt, and
//! which rows are taken. The tasks of the ViSpec paper and further ones are built in, with the
//! prompts and the choice of samples of the reference implementation.
//!
//! ```text
//! TaskRegistry --get--> TaskDefinition --open--> TaskSamples --next--> Sample
//!                             |                       |                  |
//!                          check: what is there    one row at a time    messages, image places
//! ```
//!
//! Nothing is skipped in silence: a row that cannot be used is an error with its file and number,
//! unless the caller tolerates some, and then it is counted and named.
//!
//! Images are not held: an [`ImageSource`] is a place, decoded when asked for.
//!
//! ```
//! use std::path::Path;
//!
//! use vispec_data::{ReadOptions, TaskRegistry};
//! use vispec_processor::ImageOptions;
//!
//! # fn main() -> Result<(), vispec_data::DataError> {
//! let registry = TaskRegistry::builtin();
//! // Drawn scenes need no files; for other tasks this is where the files are.
//! let data_dir = Path::new("data");
//! let samples = registry.get("scenes_short")?.open(data_dir, &ReadOptions::default())?;
//! for sample in samples.take(2) {
//!     let sample = sample?;
//!     let image = sample.images[0].decode(&ImageOptions::default())?;
//!     assert_eq!(sample.messages.n_images(), 1);
//!     assert_eq!(image.size().width, 56);
//! }
//! # Ok(())
//! # }
//! ```

pub mod capture;
pub mod conversations;
mod error;
pub mod icons;
pub mod order;
mod random;
mod rows;
pub mod scenes;
mod tasks;

pub use error::{DataError, RowOrigin};
pub use rows::{ImageSource, VideoSource};
pub use tasks::{
    CheckReport, FileStatus, ImageCheck, PixelLimits, ReadOptions, Sample, Shortage,
    TaskDefinition, TaskRegistry, TaskSamples, listing,
};

/// Compiles the example of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
