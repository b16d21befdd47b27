//! The small operations between matrix products: normalisation, gating, rotary embedding.

use crate::isa::Isa;
use crate::pool;
use crate::vector::{MAX_LANES, Routine, Vector, dispatch};

/// Cost of one element of each operation, in multiplications.
const NORM_PRODUCTS: usize = 4;
const SILU_PRODUCTS: usize = 8;
const ROTARY_PRODUCTS: usize = 4;

/// Returns the starts of whole registers in `0..len`, and the length of the rest.
#[inline(always)]
pub(crate) fn whole<V: Vector>(len: usize) -> (impl Iterator<Item = usize>, usize) {
    let rest = len % V::LANES;
    ((0..len - rest).step_by(V::LANES), rest)
}

/// See [`crate::Kernels::rms_norm`].
pub(crate) fn rms_norm(isa: Isa, x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let hidden = weight.len();
    assert_eq!(x.len(), out.len(), "rms_norm: `out` must be as long as `x`");
    assert!(
        hidden > 0 && x.len().is_multiple_of(hidden),
        "rms_norm: `weight` must divide `x`"
    );
    let norm = |x: &[f32], out: &mut [f32]| {
        for (x, out) in x.chunks_exact(hidden).zip(out.chunks_exact_mut(hidden)) {
            // SAFETY: `Kernels` guarantees that `isa` is available.
            unsafe {
                dispatch(
                    isa,
                    RmsNorm {
                        x,
                        weight,
                        eps,
                        out,
                    },
                )
            };
        }
    };
    let chunk = pool::chunk_len(x.len(), hidden, NORM_PRODUCTS);
    if chunk >= x.len() {
        norm(x, out);
    } else {
        pool::for_each_chunk(out, chunk, |index, out| {
            norm(&x[index * chunk..][..out.len()], out);
        });
    }
}

/// Normalisation of one row.
struct RmsNorm<'a> {
    x: &'a [f32],
    weight: &'a [f32],
    eps: f32,
    out: &'a mut [f32],
}

impl Routine for RmsNorm<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let len = self.x.len();
        // SAFETY: the three slices have the same length, and the caller guarantees the instruction
        // set.
        unsafe {
            let (x, weight) = (self.x.as_ptr(), self.weight.as_ptr());
            let mut sums = [V::splat(0.0); 4];
            let (starts, rest) = whole::<V>(len);
            for (index, start) in starts.enumerate() {
                let x = V::load(x.add(start));
                sums[index % 4] = x.fused(x, sums[index % 4]);
            }
            if rest > 0 {
                let x: V = V::load_part(x.add(len - rest), rest);
                sums[0] = x.fused(x, sums[0]);
            }
            let [a, b, c, d] = sums;
            let mean = a.add(b).add(c.add(d)).total() / len as f32;
            let scale = V::splat(1.0 / (mean + self.eps).sqrt());
            for start in whole::<V>(len).0 {
                let normed = V::load(x.add(start)).mul(scale);
                normed
                    .mul(V::load(weight.add(start)))
                    .store(self.out.as_mut_ptr().add(start));
            }
            if rest > 0 {
                let start = len - rest;
                let normed = V::load_part(x.add(start), rest).mul(scale);
                let weight = V::load_part(weight.add(start), rest);
                normed
                    .mul(weight)
                    .store_part(self.out.as_mut_ptr().add(start), rest);
            }
        }
    }
}

/// See [`crate::Kernels::silu_mul`].
pub(crate) fn silu_mul(isa: Isa, gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert_eq!(
        gate.len(),
        up.len(),
        "silu_mul: `up` must be as long as `gate`"
    );
    assert_eq!(
        gate.len(),
        out.len(),
        "silu_mul: `out` must be as long as `gate`"
    );
    let silu_mul = |gate: &[f32], up: &[f32], out: &mut [f32]| {
        // SAFETY: `Kernels` guarantees that `isa` is available.
        unsafe { dispatch(isa, SiluMul { gate, up, out }) };
    };
    let chunk = pool::chunk_len(out.len(), MAX_LANES, SILU_PRODUCTS);
    if chunk >= out.len() {
        silu_mul(gate, up, out);
    } else {
        pool::for_each_chunk(out, chunk, |index, out| {
            let part = index * chunk..index * chunk + out.len();
            silu_mul(&gate[part.clone()], &up[part], out);
        });
    }
}

/// Gating of equally long slices.
struct SiluMul<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Routine for SiluMul<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let len = self.gate.len();
        let (starts, rest) = whole::<V>(len);
        // SAFETY: the three slices have the same length, and the caller guarantees the instruction
        // set.
        unsafe {
            let (gate, up) = (self.gate.as_ptr(), self.up.as_ptr());
            for start in starts {
                let product = silu_product(V::load(gate.add(start)), V::load(up.add(start)));
                product.store(self.out.as_mut_ptr().add(start));
            }
            if rest > 0 {
                let start = len - rest;
                let gate: V = V::load_part(gate.add(start), rest);
                let product = silu_product(gate, V::load_part(up.add(start), rest));
                product.store_part(self.out.as_mut_ptr().add(start), rest);
            }
        }
    }
}

/// Returns `gate / (1 + exp(-gate)) * up`.
///
/// # Safety
/// The CPU must support the instruction set.
#[inline(always)]
unsafe fn silu_product<V: Vector>(gate: V, up: V) -> V {
    // SAFETY: upheld by the caller.
    unsafe {
        let one = V::splat(1.0);
        gate.div(V::splat(0.0).sub(gate).exp().add(one)).mul(up)
    }
}

/// See [`crate::Kernels::rotary`].
pub(crate) fn rotary(isa: Isa, x: &mut [f32], cos: &[f32], sin: &[f32], head_dim: usize) {
    assert!(
        head_dim > 0 && head_dim.is_multiple_of(2),
        "rotary: `head_dim` must be even"
    );
    let half = head_dim / 2;
    assert_eq!(
        cos.len(),
        sin.len(),
        "rotary: `sin` must be as long as `cos`"
    );
    assert_eq!(
        cos.len() % half,
        0,
        "rotary: `cos` must be [rows, head_dim / 2]"
    );
    let rows = cos.len() / half;
    if x.is_empty() {
        return;
    }
    let fits = rows > 0 && x.len().is_multiple_of(rows * head_dim);
    assert!(fits, "rotary: `x` must be [rows, heads, head_dim]");
    let row_len = x.len() / rows;
    let rotate = |x: &mut [f32], cos: &[f32], sin: &[f32]| {
        let angles = cos.chunks_exact(half).zip(sin.chunks_exact(half));
        for (x, (cos, sin)) in x.chunks_exact_mut(row_len).zip(angles) {
            // SAFETY: `Kernels` guarantees that `isa` is available.
            unsafe { dispatch(isa, Rotary { x, cos, sin }) };
        }
    };
    let chunk = pool::chunk_len(x.len(), row_len, ROTARY_PRODUCTS);
    if chunk >= x.len() {
        rotate(x, cos, sin);
    } else {
        let angles = chunk / row_len * half;
        pool::for_each_chunk(x, chunk, |index, x| {
            rotate(x, &cos[index * angles..], &sin[index * angles..]);
        });
    }
}

/// Rotation of one row of heads by its angles.
struct Rotary<'a> {
    x: &'a mut [f32],
    cos: &'a [f32],
    sin: &'a [f32],
}

impl Routine for Rotary<'_> {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let half = self.cos.len();
        for head in self.x.chunks_exact_mut(2 * half) {
            let (low, high) = head.split_at_mut(half);
            let (starts, rest) = whole::<V>(half);
            // SAFETY: the four slices hold `half` floats each, and the caller guarantees the
            // instruction set.
            unsafe {
                let (cos, sin) = (self.cos.as_ptr(), self.sin.as_ptr());
                for start in starts {
                    let (a, b) = (low.as_mut_ptr().add(start), high.as_mut_ptr().add(start));
                    let angle = (V::load(cos.add(start)), V::load(sin.add(start)));
                    let turned = turn(V::load(a), V::load(b), angle);
                    turned.0.store(a);
                    turned.1.store(b);
                }
            }
            // Heads are often narrower than registers; the compiler uses narrower registers here.
            let angles = self.cos.iter().zip(self.sin).skip(half - rest);
            let pairs = low.iter_mut().zip(high).skip(half - rest);
            for ((low, high), (cos, sin)) in pairs.zip(angles) {
                (*low, *high) = (*low * cos - *high * sin, *high * cos + *low * sin);
            }
        }
    }
}

/// Returns `(a cos - b sin, b cos + a sin)`, with each product rounded, as in common frameworks.
///
/// # Safety
/// The CPU must support the instruction set.
#[inline(always)]
unsafe fn turn<V: Vector>(a: V, b: V, (cos, sin): (V, V)) -> (V, V) {
    // SAFETY: upheld by the caller.
    unsafe { (a.mul(cos).sub(b.mul(sin)), b.mul(cos).add(a.mul(sin))) }
}
