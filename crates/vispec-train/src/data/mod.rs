//! From captured samples to what a training step reads.

mod captures;
mod images;
mod noise;
mod online;
mod prepared;

pub use captures::Captures;
pub use noise::Noise;
pub use prepared::{LossMask, PrepareOptions, Prepared, PreparedSample, Refusal, prepare};
