//! Entry points: kernels of a chosen instruction set, and free functions that use the detected one.

use crate::attention::{AttentionSegment, AttentionShape};
use crate::isa::Isa;
use crate::weight::{GroupedLinear, LinearShape, Weight};
use crate::{attention as attend, linear as dense, pointwise};

/// The kernels of one instruction set.
///
/// The free functions of the crate use [`Kernels::detected`]. Choose another instruction set to
/// imitate a less capable machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels {
    isa: Isa,
}

impl Kernels {
    /// Returns the kernels of `isa`, or `None` if this machine cannot run them.
    #[must_use]
    pub fn new(isa: Isa) -> Option<Self> {
        isa.is_available().then_some(Self { isa })
    }

    /// Returns the kernels of the fastest instruction set of this machine.
    #[must_use]
    pub fn detected() -> Self {
        Self {
            isa: Isa::detected(),
        }
    }

    /// Returns the instruction set in use.
    #[must_use]
    pub fn isa(self) -> Isa {
        self.isa
    }

    /// Computes a linear layer: `out = x · weightᵀ + bias`.
    ///
    /// On [`Isa::Avx512Bf16`] with bf16 weights, `x` is first rounded to bf16, as on GPUs.
    /// Everywhere else `x` stays in 32 bits, unless the weight is quantised: then rows of `x` are
    /// quantised, too. Sums are always in 32 bits.
    ///
    /// # Shapes
    /// `x[rows, inputs]`, `weight[outputs, inputs]`, `bias[outputs]`, `out[rows, outputs]`.
    ///
    /// # Panics
    /// If the length of a slice does not match `shape`.
    pub fn linear(
        self,
        x: &[f32],
        weight: Weight<'_>,
        bias: Option<&[f32]>,
        out: &mut [f32],
        shape: LinearShape,
    ) {
        let layer = GroupedLinear {
            weight,
            bias,
            out,
            outputs: shape.outputs,
        };
        dense::run(self.isa, x, shape.rows, shape.inputs, &mut [layer]);
    }

    /// Computes several linear layers of the same `x`, for example queries, keys and values.
    ///
    /// Results are bit-identical to those of [`Kernels::linear`]. Adjacent layers of one dtype (and
    /// of one group size, if quantised) share the packing of `x` and the hand-off to other threads.
    ///
    /// # Shapes
    /// `x[rows, inputs]`; for each layer `weight[outputs, inputs]`, `bias[outputs]` and
    /// `out[rows, outputs]`.
    ///
    /// # Panics
    /// If the length of a slice does not match.
    pub fn linear_group(
        self,
        x: &[f32],
        rows: usize,
        inputs: usize,
        layers: &mut [GroupedLinear<'_>],
    ) {
        dense::run(self.isa, x, rows, inputs, layers);
    }

    /// Computes grouped-query attention of a few rows of several sequences. Each sequence has its
    /// own cache, and each row its own keys.
    ///
    /// Query row `r` of a segment sees cache rows `0..prefix`, then the rows that `visible` lists
    /// for it, in that order. Its result depends only on that sequence of keys and values: not on
    /// where they are in the cache, nor on other rows and segments. Masked siblings are never read.
    ///
    /// # Shapes
    /// `q[rows, heads, head_dim]` and `out[rows, heads * head_dim]`, where `rows` counts the rows
    /// of all segments, one segment after the other. Keys and values of each segment are
    /// `[kv_heads, cache_stride, head_dim]`. Query head `h` reads key head
    /// `h / (heads / kv_heads)`.
    ///
    /// # Panics
    /// If the length of a slice does not match, `kv_heads` does not divide `heads`, a visible row
    /// is outside of the cache, or a row sees no key at all.
    pub fn attention(
        self,
        q: &[f32],
        segments: &[AttentionSegment<'_>],
        out: &mut [f32],
        shape: AttentionShape,
    ) {
        attend::run(self.isa, q, segments, out, shape);
    }

    /// Applies root-mean-square normalisation to each row: `x / sqrt(mean(x^2) + eps) * weight`.
    ///
    /// # Shapes
    /// `x[rows, hidden]`, `weight[hidden]`, `out[rows, hidden]`; `rows` follows from the lengths.
    ///
    /// # Panics
    /// If the lengths of `out` and `x` differ, or the length of `weight` does not divide that of
    /// `x`.
    pub fn rms_norm(self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        pointwise::rms_norm(self.isa, x, weight, eps, out);
    }

    /// Computes `out = silu(gate) * up`, the activation of a gated feed-forward layer.
    ///
    /// # Shapes
    /// `gate`, `up` and `out` have the same length.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn silu_mul(self, gate: &[f32], up: &[f32], out: &mut [f32]) {
        pointwise::silu_mul(self.isa, gate, up, out);
    }

    /// Applies half-split rotary position embedding (Hugging Face `rotate_half`) in place.
    ///
    /// # Shapes
    /// `x[rows, heads, head_dim]`, `cos[rows, head_dim / 2]`, `sin[rows, head_dim / 2]`; the two
    /// halves of a head share their angles. `heads` follows from the lengths.
    ///
    /// # Panics
    /// If `head_dim` is odd or zero, or the lengths do not match.
    pub fn rotary(self, x: &mut [f32], cos: &[f32], sin: &[f32], head_dim: usize) {
        pointwise::rotary(self.isa, x, cos, sin, head_dim);
    }
}

/// Same as [`Kernels::linear`], with the detected instruction set.
///
/// # Panics
/// If the length of a slice does not match `shape`.
pub fn linear(
    x: &[f32],
    weight: Weight<'_>,
    bias: Option<&[f32]>,
    out: &mut [f32],
    shape: LinearShape,
) {
    Kernels::detected().linear(x, weight, bias, out, shape);
}

/// Same as [`Kernels::linear_group`], with the detected instruction set.
///
/// # Panics
/// If the length of a slice does not match.
pub fn linear_group(x: &[f32], rows: usize, inputs: usize, layers: &mut [GroupedLinear<'_>]) {
    Kernels::detected().linear_group(x, rows, inputs, layers);
}

/// Same as [`Kernels::attention`], with the detected instruction set.
///
/// # Panics
/// If the length of a slice does not match, `kv_heads` does not divide `heads`, a visible row is
/// outside of the cache, or a row sees no key at all.
pub fn attention(
    q: &[f32],
    segments: &[AttentionSegment<'_>],
    out: &mut [f32],
    shape: AttentionShape,
) {
    Kernels::detected().attention(q, segments, out, shape);
}

/// Same as [`Kernels::rms_norm`], with the detected instruction set.
///
/// # Panics
/// If the lengths of `out` and `x` differ, or the length of `weight` does not divide that of `x`.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    Kernels::detected().rms_norm(x, weight, eps, out);
}

/// Same as [`Kernels::silu_mul`], with the detected instruction set.
///
/// # Panics
/// If the lengths differ.
pub fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) {
    Kernels::detected().silu_mul(gate, up, out);
}

/// Same as [`Kernels::rotary`], with the detected instruction set.
///
/// # Panics
/// If `head_dim` is odd or zero, or the lengths do not match.
pub fn rotary(x: &mut [f32], cos: &[f32], sin: &[f32], head_dim: usize) {
    Kernels::detected().rotary(x, cos, sin, head_dim);
}
