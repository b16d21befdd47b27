//! Integer dot products with AVX2: bytes to 16-bit pairs, pairs to 32-bit words. Two registers hold
//! a panel.
//!
//! The helpers are functions, not closures: closures would not be compiled for the instruction set
//! where the compiler does not inline them.

use std::arch::x86_64::*;

use half::bf16;

use super::{Cache, Job, Line, PANEL, Place, Quantized};

/// Signed bytes. The sign of a weight moves to `x`, since one side must be unsigned. No pair
/// overflows 16 bits, since both sides lie within -127..=127.
pub(super) struct Int8;
/// Unsigned nibbles: the weight plus 8, which the correction subtracts.
pub(super) struct Int4;

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn enter<Q: Quantized, const WIDTH: usize, const ROWS: usize>(job: &Job<'_>, place: &Place) {
    // SAFETY: upheld by the caller.
    unsafe { super::tile::<Q, WIDTH, ROWS>(job, place) };
}

#[target_feature(enable = "avx2,fma,f16c")]
fn pack<Q: Quantized>(x: &[f32], group: usize, packed: &mut [u8]) {
    super::pack::<Q>(x, group, packed);
}

/// Implements [`Quantized`], given how weights are loaded and multiplied.
macro_rules! quantized {
    (
        $name:ident, $lines:literal, $offset:literal,
        fn load($from:ident) { $($load:tt)* }
        fn pairs($weights:ident, $x:ident) { $($pairs:tt)* }
    ) => {
        // SAFETY of the blocks: the trait requires the caller to guarantee the instruction set and
        // readable pointers.
        impl Quantized for $name {
            const STEP_LINES: usize = $lines;
            const OFFSET: i32 = $offset;
            const WORDS: usize = 4;
            const ROWS: usize = 4;
            const FETCH: Cache = Cache::First;
            type Weights = [__m256i; 2];
            type Inputs = __m256i;
            type Words = [__m256i; 2];
            type Sums = [__m256; 2];

            unsafe fn pack(x: &[f32], group: usize, packed: &mut [u8]) {
                // SAFETY: see above.
                unsafe { pack::<Self>(x, group, packed) };
            }

            unsafe fn tile<const WIDTH: usize, const ROWS: usize>(job: &Job<'_>, place: &Place) {
                // SAFETY: see above.
                unsafe { enter::<Self, WIDTH, ROWS>(job, place) };
            }

            #[inline(always)]
            unsafe fn weights($from: *const Line) -> [[__m256i; 2]; 2] {
                // SAFETY: see above.
                unsafe { $($load)* }
            }

            #[inline(always)]
            unsafe fn inputs(x: *const u8) -> __m256i {
                // SAFETY: see above.
                unsafe { _mm256_set1_epi32(x.cast::<i32>().read_unaligned()) }
            }

            #[inline(always)]
            unsafe fn words(value: i32) -> [__m256i; 2] {
                // SAFETY: see above.
                unsafe { [_mm256_set1_epi32(value); 2] }
            }

            #[inline(always)]
            unsafe fn dot(
                words: [__m256i; 2],
                weights: [__m256i; 2],
                $x: __m256i,
            ) -> [__m256i; 2] {
                // SAFETY: see above.
                unsafe {
                    let first = add_pairs(words[0], {
                        let $weights = weights[0];
                        $($pairs)*
                    });
                    let second = add_pairs(words[1], {
                        let $weights = weights[1];
                        $($pairs)*
                    });
                    [first, second]
                }
            }

            #[inline(always)]
            unsafe fn zero() -> [__m256; 2] {
                // SAFETY: see above.
                unsafe { [_mm256_setzero_ps(); 2] }
            }

            #[inline(always)]
            unsafe fn scales(from: *const bf16) -> [__m256; 2] {
                // SAFETY: see above.
                unsafe {
                    [widened(from), widened(from.add(PANEL / 2))]
                }
            }

            #[inline(always)]
            unsafe fn scale(
                sums: [__m256; 2],
                words: [__m256i; 2],
                weights: [__m256; 2],
                x: f32,
            ) -> [__m256; 2] {
                // SAFETY: see above.
                unsafe {
                    [
                        scale(sums[0], words[0], weights[0], x),
                        scale(sums[1], words[1], weights[1], x),
                    ]
                }
            }

            #[inline(always)]
            unsafe fn totals(sums: [__m256; 2]) -> [f32; PANEL] {
                let mut totals = [0.0; PANEL];
                for (totals, sums) in totals.chunks_exact_mut(PANEL / 2).zip(sums) {
                    // SAFETY: see above; eight floats are writable.
                    unsafe { _mm256_storeu_ps(totals.as_mut_ptr(), sums) };
                }
                totals
            }
        }
    };
}

/// Adds pairs of products to the words.
///
/// # Safety
/// The CPU must support AVX2.
#[inline(always)]
unsafe fn add_pairs(words: __m256i, pairs: __m256i) -> __m256i {
    // SAFETY: upheld by the caller.
    unsafe { _mm256_add_epi32(words, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))) }
}

/// Adds the words times both scales.
///
/// # Safety
/// The CPU must support AVX2 and FMA.
#[inline(always)]
unsafe fn scale(sums: __m256, words: __m256i, weights: __m256, x: f32) -> __m256 {
    // SAFETY: upheld by the caller.
    unsafe {
        let scale = _mm256_mul_ps(weights, _mm256_set1_ps(x));
        _mm256_fmadd_ps(_mm256_cvtepi32_ps(words), scale, sums)
    }
}

/// Loads half a line.
///
/// # Safety
/// The CPU must support AVX2, and the line must be readable; `half` is 0 or 1.
#[inline(always)]
unsafe fn half_line(line: *const Line, half: usize) -> __m256i {
    // SAFETY: upheld by the caller.
    unsafe { _mm256_load_si256(line.cast::<__m256i>().add(half)) }
}

/// Loads half a line and converts its bytes to signed ones.
///
/// # Safety
/// Same as [`half_line`].
#[inline(always)]
unsafe fn signed(line: *const Line, half: usize) -> __m256i {
    // SAFETY: upheld by the caller.
    unsafe { _mm256_xor_si256(half_line(line, half), _mm256_set1_epi8(-128)) }
}

/// Returns the lower nibbles of the bytes.
///
/// # Safety
/// The CPU must support AVX2.
#[inline(always)]
unsafe fn nibbles(bytes: __m256i) -> __m256i {
    // SAFETY: upheld by the caller.
    unsafe { _mm256_and_si256(bytes, _mm256_set1_epi8(15)) }
}

/// Loads eight scales; a bf16 is the upper half of an f32.
///
/// # Safety
/// The CPU must support AVX2, and the scales must be readable.
#[inline(always)]
unsafe fn widened(from: *const bf16) -> __m256 {
    // SAFETY: upheld by the caller.
    unsafe {
        let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
        _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
    }
}

quantized!(
    Int8, 2, 0,
    fn load(from) {
        let next = from.add(1);
        [[signed(from, 0), signed(from, 1)], [signed(next, 0), signed(next, 1)]]
    }
    fn pairs(weights, x) {
        _mm256_maddubs_epi16(_mm256_abs_epi8(weights), _mm256_sign_epi8(x, weights))
    }
);

quantized!(
    Int4, 1, 8,
    fn load(from) {
        let both = [half_line(from, 0), half_line(from, 1)];
        let high = [_mm256_srli_epi16::<4>(both[0]), _mm256_srli_epi16::<4>(both[1])];
        [[nibbles(both[0]), nibbles(both[1])], [nibbles(high[0]), nibbles(high[1])]]
    }
    fn pairs(weights, x) { _mm256_maddubs_epi16(weights, x) }
);
