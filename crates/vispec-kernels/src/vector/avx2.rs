//! A register of eight floats, with AVX2 and FMA.

use std::arch::x86_64::*;

use half::bf16;

use super::{Element, Routine, TURN, Vector};

/// Eight floats.
#[derive(Clone, Copy)]
pub(crate) struct Lanes(pub(super) __m256);

/// Runs `routine` with registers of this type.
///
/// # Safety
/// The CPU must support AVX2 and FMA.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn enter(routine: impl Routine) {
    // SAFETY: upheld by the caller.
    unsafe { routine.run::<Lanes>() };
}

// SAFETY of the blocks: the trait requires the caller to guarantee AVX2, FMA and valid pointers.
impl Vector for Lanes {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: see above.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide)))
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_ps(to, self.0) };
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn fused(self, factor: Self, term: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm256_fmadd_ps(self.0, factor.0, term.0) })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: see above. For a pair with a NaN, the instruction returns the second operand.
        Self(unsafe { _mm256_max_ps(other.0, self.0) })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see above. For a pair with a NaN, the instruction returns the second operand.
        Self(unsafe { _mm256_min_ps(other.0, self.0) })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: see above.
        Self(unsafe {
            _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0)
        })
    }

    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        // SAFETY: see above.
        unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(self.0), _mm256_set1_epi32(127));
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
        }
    }

    #[inline(always)]
    unsafe fn first(self) -> f32 {
        // SAFETY: see above.
        unsafe { _mm256_cvtss_f32(self.0) }
    }

    #[inline(always)]
    unsafe fn total(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let upper = _mm256_extractf128_ps::<1>(self.0);
            let half = _mm_add_ps(_mm256_castps256_ps128(self.0), upper);
            let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
        }
    }

    #[inline(always)]
    unsafe fn greatest(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let upper = _mm256_extractf128_ps::<1>(self.0);
            let half = _mm_max_ps(_mm256_castps256_ps128(self.0), upper);
            let pair = _mm_max_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_max_ss(pair, _mm_movehdup_ps(pair)))
        }
    }

    #[inline(always)]
    unsafe fn transpose<E: Element>(rows: [*const E; TURN], to: *mut f32, stride: usize) {
        // SAFETY: see above.
        unsafe { transpose(rows, to, stride) };
    }
}

/// Transposes a block of 8 by 8, first within pairs and quads of columns, then across halves.
///
/// # Safety
/// See [`Vector::transpose`]; the CPU must support AVX2.
#[inline(always)]
pub(super) unsafe fn transpose<E: Element>(rows: [*const E; TURN], to: *mut f32, stride: usize) {
    // SAFETY: upheld by the caller.
    unsafe {
        let rows = rows.map(|row| E::load::<Lanes>(row).0);
        let mut pairs = rows;
        for index in (0..TURN).step_by(2) {
            pairs[index] = _mm256_unpacklo_ps(rows[index], rows[index + 1]);
            pairs[index + 1] = _mm256_unpackhi_ps(rows[index], rows[index + 1]);
        }
        let mut quads = pairs;
        for index in [0, 4] {
            quads[index] = _mm256_shuffle_ps::<0x44>(pairs[index], pairs[index + 2]);
            quads[index + 1] = _mm256_shuffle_ps::<0xee>(pairs[index], pairs[index + 2]);
            quads[index + 2] = _mm256_shuffle_ps::<0x44>(pairs[index + 1], pairs[index + 3]);
            quads[index + 3] = _mm256_shuffle_ps::<0xee>(pairs[index + 1], pairs[index + 3]);
        }
        for index in 0..4 {
            let (low, high) = (quads[index], quads[index + 4]);
            _mm256_storeu_ps(
                to.add(index * stride),
                _mm256_permute2f128_ps::<0x20>(low, high),
            );
            _mm256_storeu_ps(
                to.add((index + 4) * stride),
                _mm256_permute2f128_ps::<0x31>(low, high),
            );
        }
    }
}
