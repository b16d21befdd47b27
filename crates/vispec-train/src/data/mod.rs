//! Turns captured samples into the inputs of a training step.

mod captures;
mod images;
mod noise;
mod online;
mod prepared;
mod vocabulary;

pub use captures::Captures;
pub use noise::Noise;
pub use prepared::{
    Features, LossMask, PrepareOptions, Prepared, PreparedSample, Refusal, prepare,
};
pub use vocabulary::DraftVocabulary;
