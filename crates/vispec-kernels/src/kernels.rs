//! The entry points: a chosen instruction set, and free functions that use the detected one.

use crate::attention::{AttentionSegment, AttentionShape};
use crate::isa::Isa;
use crate::weight::{GroupedLinear, LinearShape, Weight};
use crate::{attention as attend, linear as dense, pointwise};

/// The kernels of one instruction set.
///
/// The free functions of the crate are those of [`Kernels::detected`]; name another one to
/// imitate a lesser machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels {
    isa: Isa,
}

impl Kernels {
    /// Kernels of `isa`, or `None` if this machine cannot run them.
    #[must_use]
    pub fn new(isa: Isa) -> Option<Self> {
        isa.is_available().then_some(Self { isa })
    }

    /// Kernels of the fastest instruction set of this machine.
    #[must_use]
    pub fn detected() -> Self {
        Self {
            isa: Isa::detected(),
        }
    }

    /// The instruction set in use.
    #[must_use]
    pub fn isa(self) -> Isa {
        self.isa
    }

    /// Linear layer: `out = x · weightᵀ + bias`.
    ///
    /// On [`Isa::Avx512Bf16`] with bf16 weights, `x` is rounded to bf16 first, as GPUs do;
    /// everywhere else `x` stays in 32 bits. Sums are in 32 bits always.
    ///
    /// # Shapes
    /// `x[rows, inputs]`, `weight[outputs, inputs]`, `bias[outputs]`, `out[rows, outputs]`.
    ///
    /// # Panics
    /// If a slice does not fit `shape`.
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

    /// Several linear layers of the same `x`, for example queries, keys and values: bit for bit
    /// what [`Kernels::linear`] makes of each, but neighbours of one dtype (and of one group, if
    /// quantised) share the packing of `x` and the hand-off to other threads.
    ///
    /// # Shapes
    /// `x[rows, inputs]`; for each layer `weight[outputs, inputs]`, `bias[outputs]` and
    /// `out[rows, outputs]`.
    ///
    /// # Panics
    /// If a slice does not fit.
    pub fn linear_group(
        self,
        x: &[f32],
        rows: usize,
        inputs: usize,
        layers: &mut [GroupedLinear<'_>],
    ) {
        dense::run(self.isa, x, rows, inputs, layers);
    }

    /// Grouped-query attention of a few rows of some sequences, each sequence with a cache of its
    /// own and each row with keys of its own.
    ///
    /// A segment's query row `r` sees cache rows `0..prefix`, then the rows `visible` lists for it,
    /// in that order. Its result depends only on that sequence of keys and values: not on where
    /// they stand in the cache, nor on other rows and segments. Masked siblings are never touched.
    ///
    /// # Shapes
    /// `q[rows, heads, head_dim]` and `out[rows, heads * head_dim]`, where `rows` are those of all
    /// segments, one segment after the other; keys and values of each segment
    /// `[kv_heads, cache_stride, head_dim]`. Query head `h` reads key head
    /// `h / (heads / kv_heads)`.
    ///
    /// # Panics
    /// If a slice does not fit, `kv_heads` does not divide `heads`, a visible row is out of the
    /// cache, or a row sees no key at all.
    pub fn attention(
        self,
        q: &[f32],
        segments: &[AttentionSegment<'_>],
        out: &mut [f32],
        shape: AttentionShape,
    ) {
        attend::run(self.isa, q, segments, out, shape);
    }

    /// Root-mean-square normalisation of each row: `x / sqrt(mean(x^2) + eps) * weight`.
    ///
    /// # Shapes
    /// `x[rows, hidden]`, `weight[hidden]`, `out[rows, hidden]`; `rows` follows from the lengths.
    ///
    /// # Panics
    /// If `out` is not as long as `x`, or `weight` does not divide it.
    pub fn rms_norm(self, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
        pointwise::rms_norm(self.isa, x, weight, eps, out);
    }

    /// `out = silu(gate) * up`, the middle of a gated feed-forward layer.
    ///
    /// # Shapes
    /// `gate`, `up` and `out` are equally long.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn silu_mul(self, gate: &[f32], up: &[f32], out: &mut [f32]) {
        pointwise::silu_mul(self.isa, gate, up, out);
    }

    /// Half-split rotary position embedding (Hugging Face `rotate_half`), in place.
    ///
    /// # Shapes
    /// `x[rows, heads, head_dim]`, `cos[rows, head_dim / 2]`, `sin[rows, head_dim / 2]`; the two
    /// halves of a head share their angles. `heads` follows from the lengths.
    ///
    /// # Panics
    /// If `head_dim` is odd or zero, or the lengths do not fit.
    pub fn rotary(self, x: &mut [f32], cos: &[f32], sin: &[f32], head_dim: usize) {
        pointwise::rotary(self.isa, x, cos, sin, head_dim);
    }
}

/// [`Kernels::linear`] with the detected instruction set.
///
/// # Panics
/// If a slice does not fit `shape`.
pub fn linear(
    x: &[f32],
    weight: Weight<'_>,
    bias: Option<&[f32]>,
    out: &mut [f32],
    shape: LinearShape,
) {
    Kernels::detected().linear(x, weight, bias, out, shape);
}

/// [`Kernels::linear_group`] with the detected instruction set.
///
/// # Panics
/// If a slice does not fit.
pub fn linear_group(x: &[f32], rows: usize, inputs: usize, layers: &mut [GroupedLinear<'_>]) {
    Kernels::detected().linear_group(x, rows, inputs, layers);
}

/// [`Kernels::attention`] with the detected instruction set.
///
/// # Panics
/// If a slice does not fit, or `visible` does not fit the cache.
pub fn attention(
    q: &[f32],
    segments: &[AttentionSegment<'_>],
    out: &mut [f32],
    shape: AttentionShape,
) {
    Kernels::detected().attention(q, segments, out, shape);
}

/// [`Kernels::rms_norm`] with the detected instruction set.
///
/// # Panics
/// If `out` is not as long as `x`, or `weight` does not divide it.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    Kernels::detected().rms_norm(x, weight, eps, out);
}

/// [`Kernels::silu_mul`] with the detected instruction set.
///
/// # Panics
/// If the lengths differ.
pub fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]) {
    Kernels::detected().silu_mul(gate, up, out);
}

/// [`Kernels::rotary`] with the detected instruction set.
///
/// # Panics
/// If `head_dim` is odd or zero, or the lengths do not fit.
pub fn rotary(x: &mut [f32], cos: &[f32], sin: &[f32], head_dim: usize) {
    Kernels::detected().rotary(x, cos, sin, head_dim);
}
