//! Building blocks shared by all targets and drafts.
//!
//! On the CPU decoder stacks run through the batch-invariant kernels of `vispec-kernels` (`host`), on
//! GPUs through few and wide launches (`cube`), elsewhere and under automatic differentiation through
//! Burn's operations. What is not in a decoder stack has one forward path.

pub mod attention;
mod cpu;
#[cfg(feature = "cube")]
mod cube;
pub mod decoder;
pub mod embedding;
#[cfg(feature = "flex")]
mod host;
pub mod kv_cache;
mod layer_rows;
pub mod linear;
pub mod mlp;
pub mod norm;
pub mod rope;
mod rows;
pub mod stack;
mod vision_attention;

#[cfg(feature = "cube")]
pub(crate) use cube::{is_here, picked_rows};

pub use attention::{Attention, AttentionPlan, TreePlan, attend_all};
pub use decoder::{Decoder, DecoderConfig, DecoderLayer, FirstInput, QkNorm};
pub use embedding::Embedding;
pub use kv_cache::{DeviceCache, LayerCache, ModelCache};
pub use layer_rows::LayerRows;
pub use linear::{Bias, Linear, LinearWeight, QuantizedMatrix};
pub use mlp::GatedMlp;
pub use norm::{LayerNorm, RmsNorm};
pub use rope::{MropeLayout, RotaryTable};
#[cfg(feature = "cube")]
pub(crate) use rows::row_numbers;
pub(crate) use rows::{join_columns, join_rows, pad_rows, slice_rows};
pub use stack::{DecoderStack, StackInput, StackSegment};
pub(crate) use vision_attention::{PatchGroups, VisionAttention};
