//! Linear layers with Advanced SIMD: 16-bit weights are widened, `x` stays in 32 bits.

use std::arch::aarch64::*;

use half::bf16;

use super::dot::{Block, Cache, Dot, Job, Tile, Tiles};
use super::tile::extend;

/// f32 weights.
pub(crate) struct F32;
/// bf16 weights: `x` is split into even and odd elements, so a shift and a mask widen the weights.
pub(crate) struct Bf16;

const LANES: usize = 4;

#[target_feature(enable = "neon")]
unsafe fn enter<D: Dot, const HEIGHT: usize, const ROWS: usize>(
    job: &Job<'_, D>,
    block: &Block,
    tile: &Tile,
    sums: *mut D::Sum,
) {
    // SAFETY: upheld by the caller.
    unsafe { extend::<D, HEIGHT, ROWS>(job, block, tile, sums) };
}

/// Implements [`Dot`], given how weights are loaded and widened.
macro_rules! dot {
    ($name:ident, $weight:ty, $block:literal, $pack:path, fn load($pointer:ident, $phase:ident) { $($load:tt)* }) => {
        impl Dot for $name {
            type Weight = $weight;
            type Input = f32;
            type Sum = float32x4_t;
            type Lanes = float32x4_t;

            const STEP: usize = 2 * LANES;
            const PHASES: usize = 2;
            const BLOCK: usize = $block;
            const TILES: Tiles = Tiles::Wide;
            const FETCH: Cache = Cache::First;

            unsafe fn pack(x: &[f32], packed: &mut [f32]) {
                $pack(x, packed);
            }

            unsafe fn extend<const HEIGHT: usize, const ROWS: usize>(
                job: &Job<'_, Self>,
                block: &Block,
                tile: &Tile,
                sums: *mut Self::Sum,
            ) {
                // SAFETY: upheld by the caller.
                unsafe { enter::<Self, HEIGHT, ROWS>(job, block, tile, sums) };
            }

            #[inline(always)]
            unsafe fn zero() -> float32x4_t {
                // SAFETY: the caller guarantees Advanced SIMD.
                unsafe { vdupq_n_f32(0.0) }
            }

            #[inline(always)]
            unsafe fn weights($pointer: *const $weight, $phase: usize) -> float32x4_t {
                // SAFETY: the caller guarantees Advanced SIMD and `STEP` readable weights.
                unsafe { $($load)* }
            }

            #[inline(always)]
            unsafe fn inputs(input: *const f32, phase: usize) -> float32x4_t {
                // SAFETY: the caller guarantees Advanced SIMD and `STEP` readable inputs.
                unsafe { vld1q_f32(input.add(phase * LANES)) }
            }

            #[inline(always)]
            unsafe fn fuse(
                sum: float32x4_t,
                weights: float32x4_t,
                inputs: float32x4_t,
            ) -> float32x4_t {
                // SAFETY: the caller guarantees Advanced SIMD.
                unsafe { vfmaq_f32(sum, weights, inputs) }
            }

            #[inline(always)]
            unsafe fn totals(sums: [float32x4_t; 4]) -> [f32; 4] {
                // SAFETY: the caller guarantees Advanced SIMD.
                sums.map(|sum| unsafe { vaddvq_f32(sum) })
            }
        }
    };
}

dot!(F32, f32, 512, super::pack::in_order, fn load(weight, phase) {
    vld1q_f32(weight.add(phase * LANES))
});

dot!(
    Bf16,
    bf16,
    1024,
    super::pack::even_odd::<LANES>,
    fn load(weight, phase) {
        let pairs = vreinterpretq_u32_u16(vld1q_u16(weight.cast()));
        vreinterpretq_f32_u32(if phase == 0 {
            vshlq_n_u32::<16>(pairs)
        } else {
            vandq_u32(pairs, vdupq_n_u32(0xffff_0000))
        })
    }
);
