//! Linear layers with AVX-512: widened weights, or bf16 dot products where available.

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
/// bf16 weights and `x` rounded to bf16, multiplied in pairs.
pub(crate) struct Bf16Pairs;

const LANES: usize = 16;

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn enter<D: Dot, const HEIGHT: usize, const ROWS: usize>(
    job: &Job<'_, D>,
    block: &Block,
    tile: &Tile,
    sums: *mut D::Sum,
) {
    // SAFETY: upheld by the caller.
    unsafe { extend::<D, HEIGHT, ROWS>(job, block, tile, sums) };
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,f16c")]
unsafe fn enter_bf16<D: Dot, const HEIGHT: usize, const ROWS: usize>(
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
unsafe fn halves(a: __m512, b: __m512) -> __m512 {
    // SAFETY: the caller guarantees AVX-512.
    unsafe {
        _mm512_add_ps(
            _mm512_shuffle_f32x4::<0x44>(a, b),
            _mm512_shuffle_f32x4::<0xee>(a, b),
        )
    }
}

/// Reduces four sums, which share the additions. For each: the lower half plus the upper one,
/// twice, then elements 0 and 2, and 1 and 3, then the two results.
#[inline(always)]
unsafe fn totals([a, b, c, d]: [__m512; 4]) -> [f32; 4] {
    // SAFETY: the caller guarantees AVX-512.
    unsafe {
        let (ab, cd) = (halves(a, b), halves(c, d));
        let even = _mm512_shuffle_f32x4::<0x88>(ab, cd);
        let quarters = _mm512_add_ps(even, _mm512_shuffle_f32x4::<0xdd>(ab, cd));
        let pairs = _mm512_add_ps(quarters, _mm512_permute_ps::<0x4e>(quarters));
        let totals = _mm512_add_ps(pairs, _mm512_permute_ps::<0xb1>(pairs));
        let first = _mm512_maskz_compress_ps(0x1111, totals);
        std::mem::transmute(_mm512_castps512_ps128(first))
    }
}

/// Implements [`Dot`], given how weights are loaded and widened.
macro_rules! dot {
    ($name:ident, $weight:ty, $block:literal, $tiles:ident, $pack:path, fn load($pointer:ident, $phase:ident) { $($load:tt)* }) => {
        impl Dot for $name {
            type Weight = $weight;
            type Input = f32;
            type Sum = __m512;
            type Lanes = __m512;

            const STEP: usize = 2 * LANES;
            const PHASES: usize = 2;
            const BLOCK: usize = $block;
            const TILES: Tiles = Tiles::$tiles;
            const FETCH: Cache = Cache::Second;

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
            unsafe fn zero() -> __m512 {
                // SAFETY: the caller guarantees AVX-512.
                unsafe { _mm512_setzero_ps() }
            }

            #[inline(always)]
            unsafe fn weights($pointer: *const $weight, $phase: usize) -> __m512 {
                // SAFETY: the caller guarantees AVX-512 and `STEP` readable weights.
                unsafe { $($load)* }
            }

            #[inline(always)]
            unsafe fn inputs(input: *const f32, phase: usize) -> __m512 {
                // SAFETY: the caller guarantees AVX-512 and `STEP` readable inputs.
                unsafe { _mm512_loadu_ps(input.add(phase * LANES)) }
            }

            #[inline(always)]
            unsafe fn fuse(sum: __m512, weights: __m512, inputs: __m512) -> __m512 {
                // SAFETY: the caller guarantees AVX-512.
                unsafe { _mm512_fmadd_ps(weights, inputs, sum) }
            }

            #[inline(always)]
            unsafe fn totals(sums: [__m512; 4]) -> [f32; 4] {
                // SAFETY: the caller guarantees AVX-512.
                unsafe { totals(sums) }
            }
        }
    };
}

dot!(
    F32,
    f32,
    512,
    Wide,
    super::pack::in_order,
    fn load(weight, phase) { _mm512_loadu_ps(weight.add(phase * LANES)) }
);

dot!(
    Bf16,
    bf16,
    512,
    Wide,
    super::pack::even_odd::<LANES>,
    fn load(weight, phase) {
        let pairs = _mm512_loadu_si512(weight.cast());
        _mm512_castsi512_ps(if phase == 0 {
            _mm512_slli_epi32::<16>(pairs)
        } else {
            _mm512_and_si512(pairs, _mm512_set1_epi32(0xffff_0000_u32 as i32))
        })
    }
);

dot!(
    F16,
    f16,
    512,
    Wide,
    super::pack::in_order,
    fn load(weight, phase) { _mm512_cvtph_ps(_mm256_loadu_si256(weight.add(phase * LANES).cast())) }
);

impl Dot for Bf16Pairs {
    type Weight = bf16;
    type Input = bf16;
    type Sum = __m512;
    type Lanes = __m512bh;

    const STEP: usize = 2 * LANES;
    const PHASES: usize = 1;
    const BLOCK: usize = 1024;
    const TILES: Tiles = Tiles::Wide;
    const FETCH: Cache = Cache::Second;

    unsafe fn pack(x: &[f32], packed: &mut [bf16]) {
        // SAFETY: upheld by the caller.
        unsafe { round(x, packed) };
    }

    unsafe fn extend<const HEIGHT: usize, const ROWS: usize>(
        job: &Job<'_, Self>,
        block: &Block,
        tile: &Tile,
        sums: *mut Self::Sum,
    ) {
        // SAFETY: upheld by the caller.
        unsafe { enter_bf16::<Self, HEIGHT, ROWS>(job, block, tile, sums) };
    }

    #[inline(always)]
    unsafe fn zero() -> __m512 {
        // SAFETY: the caller guarantees AVX-512.
        unsafe { _mm512_setzero_ps() }
    }

    #[inline(always)]
    unsafe fn weights(weight: *const bf16, _phase: usize) -> __m512bh {
        // SAFETY: the caller guarantees AVX-512 and `STEP` readable weights; both types are 64
        // plain bytes.
        unsafe { std::mem::transmute(_mm512_loadu_si512(weight.cast())) }
    }

    #[inline(always)]
    unsafe fn inputs(input: *const bf16, _phase: usize) -> __m512bh {
        // SAFETY: same as for the weights.
        unsafe { std::mem::transmute(_mm512_loadu_si512(input.cast())) }
    }

    #[inline(always)]
    unsafe fn fuse(sum: __m512, weights: __m512bh, inputs: __m512bh) -> __m512 {
        // SAFETY: the caller guarantees AVX-512 BF16.
        unsafe { _mm512_dpbf16_ps(sum, weights, inputs) }
    }

    #[inline(always)]
    unsafe fn totals(sums: [__m512; 4]) -> [f32; 4] {
        // SAFETY: the caller guarantees AVX-512.
        unsafe { totals(sums) }
    }
}

/// Rounds to the nearest bf16 (ties to even), 16 at a time; pads with zeros.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn round(x: &[f32], packed: &mut [bf16]) {
    let whole = x.len() / LANES * LANES;
    for (x, packed) in x.chunks_exact(LANES).zip(packed.chunks_exact_mut(LANES)) {
        // SAFETY: 16 floats are readable and 16 bf16 writable; both types are 32 plain bytes.
        unsafe {
            let rounded = _mm512_cvtneps_pbh(_mm512_loadu_ps(x.as_ptr()));
            packed
                .as_mut_ptr()
                .cast::<__m256bh>()
                .write_unaligned(rounded);
        }
    }
    super::pack::rounded(&x[whole..], &mut packed[whole..]);
}
