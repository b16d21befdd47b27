//! Building blocks shared by all targets and drafts.
//!
//! Decoder stacks have three forward paths: the batch-invariant kernels of `vispec-kernels` on the
//! CPU (`host`), a few wide launches on GPUs (`cube`), and Burn's operations elsewhere and under
//! automatic differentiation. Modules outside decoder stacks have one forward path.

mod attention;
mod cpu;
#[cfg(feature = "cube")]
mod cube;
mod decoder;
mod embedding;
#[cfg(feature = "flex")]
mod host;
mod kv_cache;
mod layer_rows;
mod linear;
mod mlp;
mod norm;
mod rope;
mod rows;
mod stack;
mod vision_attention;

#[cfg(feature = "cube")]
pub(crate) use cube::{is_here, picked_rows};

pub(crate) use attention::{AttentionPlan, attend_all};
pub(crate) use decoder::{Decoder, FirstInput};
pub use decoder::{DecoderConfig, QkNorm};
pub use embedding::Embedding;
pub(crate) use kv_cache::{ModelCache, capacity_bound, grown_capacity};
pub use layer_rows::LayerRows;
pub use linear::{Bias, Linear};
pub(crate) use linear::{LinearWeight, QuantizedMatrix};
pub(crate) use mlp::GatedMlp;
pub(crate) use norm::{LayerNorm, RmsNorm};
pub(crate) use rope::{MropeLayout, RotaryTable};
#[cfg(feature = "cube")]
pub(crate) use rows::row_numbers;
pub(crate) use rows::{join_columns, join_rows, pad_rows, slice_rows};
pub use stack::StackInput;
pub(crate) use stack::{DecoderStack, StackSegment};
pub(crate) use vision_attention::{PatchGroups, VisionAttention};
