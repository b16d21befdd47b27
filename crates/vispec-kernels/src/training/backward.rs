//! Gradients of the small operations between matrix products.

use crate::isa::Isa;
use crate::pointwise::whole;
use crate::vector::{Routine, Vector, dispatch};

/// See [`crate::Kernels::rms_norm_backward`].
pub(crate) fn rms_norm(
    isa: Isa,
    x: &[f32],
    weight: &[f32],
    eps: f32,
    gradient: &[f32],
    [x_gradient, weight_gradient]: [&mut [f32]; 2],
) {
    let hidden = weight.len();
    assert!(
        hidden > 0 && x.len().is_multiple_of(hidden),
        "rms_norm_backward: `weight` must divide `x`"
    );
    assert!(
        gradient.len() == x.len() && x_gradient.len() == x.len(),
        "rms_norm_backward: gradients must be as long as `x`"
    );
    assert_eq!(
        weight_gradient.len(),
        hidden,
        "rms_norm_backward: the gradient of `weight` must be as long as it"
    );
    weight_gradient.fill(0.0);
    let rows = x.chunks_exact(hidden).zip(gradient.chunks_exact(hidden));
    for ((x, gradient), x_gradient) in rows.zip(x_gradient.chunks_exact_mut(hidden)) {
        let row = RmsNorm {
            x,
            weight,
            eps,
            gradient,
            x_gradient,
            weight_gradient,
        };
        // SAFETY: `Kernels` guarantees that `isa` is available.
        unsafe { dispatch(isa, row) };
    }
}

/// Backward pass of one row.
struct RmsNorm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    gradient: &'a [f32],
    x_gradient: &'a mut [f32],
    weight_gradient: &'a mut [f32],
}

impl RmsNorm<'_> {
    /// Loads `len` elements of `x`, the weight and the gradient, from `start` on.
    ///
    /// # Safety
    /// The CPU must support the instruction set, and the slices must have these elements.
    #[inline(always)]
    unsafe fn load<V: Vector>(&self, start: usize, len: usize) -> [V; 3] {
        let load = |from: &[f32]| {
            // SAFETY: upheld by the caller.
            unsafe {
                let from = from.as_ptr().add(start);
                if len == V::LANES {
                    V::load(from)
                } else {
                    V::load_part(from, len)
                }
            }
        };
        [load(self.x), load(self.weight), load(self.gradient)]
    }
}

impl Routine for RmsNorm<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let len = self.x.len();
        let steps = || {
            let starts = (0..len).step_by(V::LANES);
            starts.map(|start| (start, V::LANES.min(len - start)))
        };
        // SAFETY: all slices have the same length, and the caller guarantees the instruction set.
        unsafe {
            let (mut squares, mut products) = (V::splat(0.0), V::splat(0.0));
            for (start, lanes) in steps() {
                let [x, weight, gradient] = self.load::<V>(start, lanes);
                squares = x.fused(x, squares);
                products = gradient.mul(weight).fused(x, products);
            }
            let mean = squares.total() / len as f32;
            let scale = 1.0 / (mean + self.eps).sqrt();
            // Contribution of the mean of squares to the gradient of `x`.
            let inner = products.total() * scale * scale * scale / len as f32;
            let (scale, inner) = (V::splat(scale), V::splat(inner));
            for (start, lanes) in steps() {
                let [x, weight, gradient] = self.load::<V>(start, lanes);
                let own = gradient.mul(weight).mul(scale).sub(x.mul(inner));
                let to = self.x_gradient.as_mut_ptr().add(start);
                let sum = self.weight_gradient.as_mut_ptr().add(start);
                let of_weight = gradient.mul(x).mul(scale);
                if lanes == V::LANES {
                    own.store(to);
                    V::load(sum).add(of_weight).store(sum);
                } else {
                    own.store_part(to, lanes);
                    let before: V = V::load_part(sum.cast_const(), lanes);
                    before.add(of_weight).store_part(sum, lanes);
                }
            }
        }
    }
}

/// See [`crate::Kernels::silu_mul_backward`].
pub(crate) fn silu_mul(
    isa: Isa,
    gate: &[f32],
    up: &[f32],
    gradient: &[f32],
    [gate_gradient, up_gradient]: [&mut [f32]; 2],
) {
    let len = gate.len();
    assert!(
        up.len() == len
            && gradient.len() == len
            && gate_gradient.len() == len
            && up_gradient.len() == len,
        "silu_mul_backward: all slices must be equally long"
    );
    let routine = SiluMul {
        gate,
        up,
        gradient,
        gate_gradient,
        up_gradient,
    };
    // SAFETY: `Kernels` guarantees that `isa` is available.
    unsafe { dispatch(isa, routine) };
}

/// Backward pass of equally long slices.
struct SiluMul<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    gradient: &'a [f32],
    gate_gradient: &'a mut [f32],
    up_gradient: &'a mut [f32],
}

impl Routine for SiluMul<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let (starts, rest) = whole::<V>(self.gate.len());
        // SAFETY: the slices have the same length, and the caller guarantees the instruction set.
        unsafe {
            for start in starts {
                let load = |from: &[f32]| V::load(from.as_ptr().add(start));
                let (gate, up) =
                    silu_gradients(load(self.gate), load(self.up), load(self.gradient));
                gate.store(self.gate_gradient.as_mut_ptr().add(start));
                up.store(self.up_gradient.as_mut_ptr().add(start));
            }
            if rest > 0 {
                let start = self.gate.len() - rest;
                let load = |from: &[f32]| V::load_part(from.as_ptr().add(start), rest);
                let (gate, up): (V, V) =
                    silu_gradients(load(self.gate), load(self.up), load(self.gradient));
                gate.store_part(self.gate_gradient.as_mut_ptr().add(start), rest);
                up.store_part(self.up_gradient.as_mut_ptr().add(start), rest);
            }
        }
    }
}

/// Returns the gradients of `gate` and `up` in `gate / (1 + exp(-gate)) * up`.
///
/// # Safety
/// The CPU must support the instruction set.
#[inline(always)]
unsafe fn silu_gradients<V: Vector>(gate: V, up: V, gradient: V) -> (V, V) {
    // SAFETY: upheld by the caller.
    unsafe {
        let one = V::splat(1.0);
        let sigmoid = one.div(V::splat(0.0).sub(gate).exp().add(one));
        let silu = gate.mul(sigmoid);
        // silu' = sigmoid + silu (1 - sigmoid)
        let slope = silu.fused(one.sub(sigmoid), sigmoid);
        (gradient.mul(up).mul(slope), gradient.mul(silu))
    }
}
