//! What is special about the checkpoints of EAGLE-3: their configs, which hidden states of the
//! target they read, and their own vocabulary.

mod config;
mod layer_ids;
mod vocab;

pub use config::Eagle3Config;
pub(super) use config::PairResidual;
pub use layer_ids::LayerIds;

pub(super) use vocab::own_tokens;
