//! From captured samples to what a training step reads.

mod noise;
mod prepared;

pub use noise::Noise;
pub use prepared::{LossMask, PrepareOptions, Prepared, PreparedSample, Refusal, prepare};
