//! Integer dot products with AVX-512 VNNI. One register holds a panel.

use std::arch::x86_64::*;

use half::bf16;

use super::{Cache, Job, Line, PANEL, Place, Quantized};

/// Unsigned bytes: the weight plus 128, which the correction subtracts.
pub(super) struct Int8;
/// Unsigned nibbles: the weight plus 8, which the correction subtracts.
pub(super) struct Int4;

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn enter<Q: Quantized, const WIDTH: usize, const ROWS: usize>(job: &Job<'_>, place: &Place) {
    // SAFETY: upheld by the caller.
    unsafe { super::tile::<Q, WIDTH, ROWS>(job, place) };
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
fn pack<Q: Quantized>(x: &[f32], group: usize, packed: &mut [u8]) {
    super::pack::<Q>(x, group, packed);
}

/// Implements [`Quantized`], given how weights are loaded.
macro_rules! quantized {
    ($name:ident, $lines:literal, $offset:literal, fn load($from:ident) { $($load:tt)* }) => {
        // SAFETY of the blocks: the trait requires the caller to guarantee the instruction set and
        // readable pointers.
        impl Quantized for $name {
            const STEP_LINES: usize = $lines;
            const OFFSET: i32 = $offset;
            const WORDS: usize = 12;
            const ROWS: usize = 6;
            const FETCH: Cache = Cache::Second;
            type Weights = __m512i;
            type Inputs = __m512i;
            type Words = __m512i;
            type Sums = __m512;

            unsafe fn pack(x: &[f32], group: usize, packed: &mut [u8]) {
                // SAFETY: see above.
                unsafe { pack::<Self>(x, group, packed) };
            }

            unsafe fn tile<const WIDTH: usize, const ROWS: usize>(job: &Job<'_>, place: &Place) {
                // SAFETY: see above.
                unsafe { enter::<Self, WIDTH, ROWS>(job, place) };
            }

            #[inline(always)]
            unsafe fn weights($from: *const Line) -> [__m512i; 2] {
                // SAFETY: see above.
                unsafe { $($load)* }
            }

            #[inline(always)]
            unsafe fn inputs(x: *const u8) -> __m512i {
                // SAFETY: see above.
                unsafe { _mm512_set1_epi32(x.cast::<i32>().read_unaligned()) }
            }

            #[inline(always)]
            unsafe fn words(value: i32) -> __m512i {
                // SAFETY: see above.
                unsafe { _mm512_set1_epi32(value) }
            }

            #[inline(always)]
            unsafe fn dot(words: __m512i, weights: __m512i, x: __m512i) -> __m512i {
                // SAFETY: see above.
                unsafe { _mm512_dpbusd_epi32(words, weights, x) }
            }

            #[inline(always)]
            unsafe fn zero() -> __m512 {
                // SAFETY: see above.
                unsafe { _mm512_setzero_ps() }
            }

            #[inline(always)]
            unsafe fn scales(from: *const bf16) -> __m512 {
                // SAFETY: see above; a bf16 is the upper half of an f32.
                unsafe {
                    let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
                    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
                }
            }

            #[inline(always)]
            unsafe fn scale(sums: __m512, words: __m512i, weights: __m512, x: f32) -> __m512 {
                // SAFETY: see above.
                unsafe {
                    let scale = _mm512_mul_ps(weights, _mm512_set1_ps(x));
                    _mm512_fmadd_ps(_mm512_cvtepi32_ps(words), scale, sums)
                }
            }

            #[inline(always)]
            unsafe fn totals(sums: __m512) -> [f32; PANEL] {
                let mut totals = [0.0; PANEL];
                // SAFETY: see above; sixteen floats are writable.
                unsafe { _mm512_storeu_ps(totals.as_mut_ptr(), sums) };
                totals
            }
        }
    };
}

quantized!(
    Int8, 2, 128,
    fn load(from) { [_mm512_load_si512(from.cast()), _mm512_load_si512(from.add(1).cast())] }
);

quantized!(
    Int4, 1, 8,
    fn load(from) {
        let both = _mm512_load_si512(from.cast());
        let nibbles = _mm512_set1_epi8(15);
        let high = _mm512_srli_epi16::<4>(both);
        [_mm512_and_si512(both, nibbles), _mm512_and_si512(high, nibbles)]
    }
);
