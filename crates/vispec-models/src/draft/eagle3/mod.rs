//! The parts that are specific to EAGLE-3 checkpoints: their configs, the hidden states of the
//! target that they read, and their own vocabulary.

mod config;
mod layer_ids;
mod vocab;

pub use config::Eagle3Config;
pub(super) use config::PairResidual;
pub use layer_ids::LayerIds;

pub(super) use vocab::own_tokens;
