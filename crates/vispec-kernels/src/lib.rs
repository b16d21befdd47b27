//! CPU kernels for decoding (batch-invariant linear layers and attention) and for training.
//!
//! Burn's CPU backends widen a 16-bit matrix again at each call, and their results depend on the
//! number of rows in the call. These kernels read weights as the checkpoint stores them
//! (`[outputs, inputs]`, straight from a memory map), and are *batch-invariant by construction*: a
//! row's result is bit-identical for any number of rows, any position of the row and any number of
//! threads. So a node verified inside a token tree has the same logits as when it is decoded alone,
//! in every dtype, and speculative decoding equals plain decoding.
//!
//! Each output element has one fixed order of accumulation, which depends only on the instruction
//! set and the weight's dtype. Blocking over rows, outputs, inputs and threads decides *when* a
//! partial sum is extended, never *how*. Attention orders keys by their place in the visible path,
//! not in the cache, and skips masked siblings.
//!
//! ```
//! use vispec_kernels::{LinearShape, Weight, linear};
//!
//! let shape = LinearShape { rows: 2, inputs: 3, outputs: 2 };
//! let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
//! let weight = [1.0, 0.0, 0.0, 0.0, 1.0, 1.0];
//! let mut out = [0.0; 4];
//! linear(&x, Weight::F32(&weight), Some(&[0.5, 0.0]), &mut out, shape);
//! assert_eq!(out, [1.5, 5.0, 4.5, 11.0]);
//! ```
//!
//! With the feature `training`, [`Kernels`] also has products of matrices in any layout, causal
//! attention over whole samples, gradients of these operations, and AdamW. Their results do not
//! depend on the number of threads either.
//!
//! The free functions use the best instruction set found at run time; [`Kernels`] selects one.
//! Threads come from the current rayon pool. A model that runs a whole step inside [`in_pool`]
//! avoids waking them at each call.
#![allow(
    unsafe_code,
    reason = "SIMD intrinsics: the one crate of the workspace that needs them"
)]
#![deny(unsafe_op_in_unsafe_fn)]

mod attention;
mod isa;
mod kernels;
mod linear;
mod mapped_file;
pub mod measure;
mod panel;
mod pointwise;
mod pool;
mod quantize;
mod scratch;
mod team;
#[cfg(feature = "training")]
mod training;
mod vector;
mod weight;

pub use attention::{AttentionSegment, AttentionShape, KeyValues, VisibleRows};
pub use isa::Isa;
pub use kernels::{Kernels, attention, linear, linear_group, rms_norm, rotary, silu_mul};
pub use mapped_file::MappedFile;
pub use panel::{Bits, QuantizedPanels};
pub use pool::{in_pool, map_rows, n_threads};
pub use quantize::{QuantizeError, QuantizedWeight, check_group};
#[cfg(feature = "training")]
pub use training::{
    AdamWFactors, Attended, AttendedGradient, CausalAttention, CausalGradients, CausalSample,
    Matrix, OwnGradients, OwnKeys,
};
pub use weight::{GroupedLinear, LinearShape, Weight};
