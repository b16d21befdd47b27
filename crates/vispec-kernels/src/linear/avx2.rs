//! Linear layers with AVX2 and FMA: 16-bit weights are widened, `x` stays in 32 bits.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::dot::{Block, Cache, Dot, Job, Tile, Tiles};
use super::tile::extend;

/// f32 weights.
pub(crate) struct F32;
/// bf16 weights: `x` is split into even and odd elements, so a shift and a mask widen the weights.
pub(crate) struct Bf16;
/// f16 weights.
pub(crate) struct F16;

const LANES: usize = 8;

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn enter<D: Dot, const HEIGHT: usize, const ROWS: usize>(
    job: &Job<'_, D>,
    block: &Block,
    tile: &Tile,
    sums: *mut D::Sum,
) {
    // SAFETY: upheld by the caller.
    unsafe { extend::<D, HEIGHT, ROWS>(job, block, tile, sums) };
}

/// Adds the lower and the upper half of each of two sums.
#[inline(always)]
unsafe fn halves(a: __m256, b: __m256) -> __m256 {
    // SAFETY: the caller guarantees AVX2.
    unsafe {
        _mm256_add_ps(
            _mm256_permute2f128_ps::<0x20>(a, b),
            _mm256_permute2f128_ps::<0x31>(a, b),
        )
    }
}

/// Reduces four sums, which share the additions. For each: the lower half plus the upper one, then
/// elements 0 and 2, and 1 and 3, then the two results.
#[inline(always)]
unsafe fn totals([a, b, c, d]: [__m256; 4]) -> [f32; 4] {
    // SAFETY: the caller guarantees AVX2.
    unsafe {
        let (ab, cd) = (halves(a, b), halves(c, d));
        let pairs = _mm256_add_ps(_mm256_unpacklo_ps(ab, cd), _mm256_unpackhi_ps(ab, cd));
        let totals = _mm256_add_ps(pairs, _mm256_permute_ps::<0x4e>(pairs));
        let (ac, bd) = (
            _mm256_castps256_ps128(totals),
            _mm256_extractf128_ps::<1>(totals),
        );
        std::mem::transmute(_mm_unpacklo_ps(ac, bd))
    }
}

/// Implements [`Dot`], given how weights are loaded and widened.
macro_rules! dot {
    ($name:ident, $weight:ty, $block:literal, $tiles:ident, $pack:path, fn load($pointer:ident, $phase:ident) { $($load:tt)* }) => {
        impl Dot for $name {
            type Weight = $weight;
            type Input = f32;
            type Sum = __m256;
            type Lanes = __m256;

            const STEP: usize = 2 * LANES;
            const PHASES: usize = 2;
            const BLOCK: usize = $block;
            const TILES: Tiles = Tiles::$tiles;
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
            unsafe fn zero() -> __m256 {
                // SAFETY: the caller guarantees AVX2.
                unsafe { _mm256_setzero_ps() }
            }

            #[inline(always)]
            unsafe fn weights($pointer: *const $weight, $phase: usize) -> __m256 {
                // SAFETY: the caller guarantees AVX2 and `STEP` readable weights.
                unsafe { $($load)* }
            }

            #[inline(always)]
            unsafe fn inputs(input: *const f32, phase: usize) -> __m256 {
                // SAFETY: the caller guarantees AVX and `STEP` readable inputs.
                unsafe { _mm256_loadu_ps(input.add(phase * LANES)) }
            }

            #[inline(always)]
            unsafe fn fuse(sum: __m256, weights: __m256, inputs: __m256) -> __m256 {
                // SAFETY: the caller guarantees FMA.
                unsafe { _mm256_fmadd_ps(weights, inputs, sum) }
            }

            #[inline(always)]
            unsafe fn totals(sums: [__m256; 4]) -> [f32; 4] {
                // SAFETY: the caller guarantees AVX2.
                unsafe { totals(sums) }
            }
        }
    };
}

dot!(
    F32,
    f32,
    512,
    Narrow,
    super::pack::in_order,
    fn load(weight, phase) { _mm256_loadu_ps(weight.add(phase * LANES)) }
);

dot!(
    Bf16,
    bf16,
    1024,
    NarrowWidening,
    super::pack::even_odd::<LANES>,
    fn load(weight, phase) {
        let pairs = _mm256_loadu_si256(weight.cast());
        _mm256_castsi256_ps(if phase == 0 {
            _mm256_slli_epi32::<16>(pairs)
        } else {
            _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff_0000_u32 as i32))
        })
    }
);

dot!(
    F16,
    f16,
    1024,
    NarrowWidening,
    super::pack::in_order,
    fn load(weight, phase) { _mm256_cvtph_ps(_mm_loadu_si128(weight.add(phase * LANES).cast())) }
);
