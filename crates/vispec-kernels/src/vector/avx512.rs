//! A register of sixteen floats, with AVX-512.

use std::arch::x86_64::*;

use half::bf16;

use super::{Element, Routine, TURN, Vector, avx2};

/// Sixteen floats.
#[derive(Clone, Copy)]
pub(crate) struct Lanes(__m512);

/// Runs `routine` with registers of this type.
///
/// # Safety
/// The CPU must support AVX-512 F, BW, DQ and VL.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn enter(routine: impl Routine) {
    // SAFETY: upheld by the caller.
    unsafe { routine.run::<Lanes>() };
}

// SAFETY of the blocks: the trait requires the caller to guarantee AVX-512 and valid pointers.
impl Vector for Lanes {
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_set1_ps(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: see above.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide)))
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(to, self.0) };
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_add_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_sub_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_mul_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_div_ps(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn fused(self, factor: Self, term: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { _mm512_fmadd_ps(self.0, factor.0, term.0) })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: see above. For a pair with a NaN, the instruction returns the second operand.
        Self(unsafe { _mm512_max_ps(other.0, self.0) })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see above. For a pair with a NaN, the instruction returns the second operand.
        Self(unsafe { _mm512_min_ps(other.0, self.0) })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: see above.
        Self(unsafe {
            _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0)
        })
    }

    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        // SAFETY: see above.
        unsafe {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent)))
        }
    }

    #[inline(always)]
    unsafe fn first(self) -> f32 {
        // SAFETY: see above.
        unsafe { _mm512_cvtss_f32(self.0) }
    }

    #[inline(always)]
    unsafe fn greatest(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let upper = _mm512_extractf32x8_ps::<1>(self.0);
            let half = _mm256_max_ps(_mm512_castps512_ps256(self.0), upper);
            super::avx2::Lanes(half).greatest()
        }
    }

    #[inline(always)]
    unsafe fn total(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let upper = _mm512_extractf32x8_ps::<1>(self.0);
            let half = _mm256_add_ps(_mm512_castps512_ps256(self.0), upper);
            let upper = _mm256_extractf128_ps::<1>(half);
            let half = _mm_add_ps(_mm256_castps256_ps128(half), upper);
            let pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
            _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)))
        }
    }

    #[inline(always)]
    unsafe fn transpose<E: Element>(rows: [*const E; TURN], to: *mut f32, stride: usize) {
        // SAFETY: see above.
        unsafe { avx2::transpose(rows, to, stride) };
    }
}
