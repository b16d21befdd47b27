//! Integer dot products with AVX2: bytes to 16-bit pairs, pairs to 32-bit words.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{GROUP_STEP, Job, Quantized};

/// Signed bytes. The sign of a weight moves to `x`, as one side must be unsigned; no pair
/// exceeds 16 bits since both sides lie within -127..=127.
pub(super) struct Int8;
/// Nibbles, unsigned: eight too many, which the correction takes back.
pub(super) struct Int4;

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn enter<Q: Quantized>(job: &Job<'_>, outputs: Range<usize>) {
    // SAFETY: the caller's promise.
    unsafe { super::run::<Q>(job, outputs) };
}

#[target_feature(enable = "avx2,fma,f16c")]
fn pack<Q: Quantized>(x: &[f32], group: usize, packed: &mut [u8]) {
    super::pack::<Q>(x, group, packed);
}

/// Implements [`Quantized`] from how weights are loaded and multiplied.
macro_rules! quantized {
    (
        $name:ident, $bytes:expr, $offset:literal,
        fn load($from:ident) { $($load:tt)* }
        fn pairs($weights:ident, $x:ident) { $($pairs:tt)* }
    ) => {
        impl Quantized for $name {
            const STEP_BYTES: usize = $bytes;
            const OFFSET: i32 = $offset;
            const HEIGHT: usize = 2;
            type Weights = __m256i;
            type Words = __m256i;
            type Sums = __m256;

            unsafe fn pack(x: &[f32], group: usize, packed: &mut [u8]) {
                // SAFETY: the caller promises AVX2.
                unsafe { pack::<Self>(x, group, packed) };
            }

            unsafe fn run(job: &Job<'_>, outputs: Range<usize>) {
                // SAFETY: the caller's promise.
                unsafe { enter::<Self>(job, outputs) };
            }

            #[inline(always)]
            unsafe fn weights($from: *const u8) -> __m256i {
                // SAFETY: the caller promises AVX2 and a step.
                unsafe { $($load)* }
            }

            #[inline(always)]
            unsafe fn words(correction: i32) -> __m256i {
                // SAFETY: the caller promises AVX2.
                unsafe { _mm256_zextsi128_si256(_mm_cvtsi32_si128(correction)) }
            }

            #[inline(always)]
            unsafe fn dot(words: __m256i, $weights: __m256i, x: *const u8) -> __m256i {
                // SAFETY: the caller promises AVX2 and a step.
                unsafe {
                    let $x = _mm256_loadu_si256(x.cast());
                    let pairs = { $($pairs)* };
                    _mm256_add_epi32(words, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
                }
            }

            #[inline(always)]
            unsafe fn sums() -> __m256 {
                // SAFETY: the caller promises AVX2.
                unsafe { _mm256_setzero_ps() }
            }

            #[inline(always)]
            unsafe fn splat(factor: f32) -> __m256 {
                // SAFETY: the caller promises AVX2.
                unsafe { _mm256_set1_ps(factor) }
            }

            #[inline(always)]
            unsafe fn scale(sums: __m256, words: __m256i, weight: __m256, x: __m256) -> __m256 {
                // SAFETY: the caller promises FMA.
                unsafe {
                    _mm256_fmadd_ps(_mm256_cvtepi32_ps(words), _mm256_mul_ps(weight, x), sums)
                }
            }

            #[inline(always)]
            unsafe fn total(sums: __m256) -> f32 {
                // SAFETY: the caller promises AVX2.
                unsafe { crate::linear::avx2::total(sums) }
            }
        }
    };
}

quantized!(
    Int8, GROUP_STEP, 0,
    fn load(from) { _mm256_loadu_si256(from.cast()) }
    fn pairs(weights, x) {
        _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(x, weights))
    }
);

quantized!(
    Int4, GROUP_STEP / 2, 8,
    fn load(from) {
        let packed = _mm_loadu_si128(from.cast());
        let both = _mm256_set_m128i(_mm_srli_epi16::<4>(packed), packed);
        _mm256_and_si256(both, _mm256_set1_epi8(15))
    }
    fn pairs(weights, x) { _mm256_maddubs_epi16(weights, x) }
);
