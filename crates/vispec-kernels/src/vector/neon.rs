//! A register of four floats, with Advanced SIMD.

use std::arch::aarch64::*;

use half::bf16;

use super::{Element, Routine, TURN, Vector};

/// Four floats.
#[derive(Clone, Copy)]
pub(crate) struct Lanes(float32x4_t);

/// Runs `routine` with registers of this type.
///
/// # Safety
/// The CPU must support Advanced SIMD.
#[target_feature(enable = "neon")]
pub(super) unsafe fn enter(routine: impl Routine) {
    // SAFETY: upheld by the caller.
    unsafe { routine.run::<Lanes>() };
}

// SAFETY of the blocks: the trait requires the caller to guarantee Advanced SIMD and valid
// pointers.
impl Vector for Lanes {
    const LANES: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { vdupq_n_f32(value) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        Self(unsafe { vld1q_f32(from) })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: see above.
        unsafe {
            let wide = vmovl_u16(vld1_u16(from.cast()));
            Self(vreinterpretq_f32_u32(vshlq_n_u32::<16>(wide)))
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { vst1q_f32(to, self.0) };
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vaddq_f32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vsubq_f32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vmulq_f32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vdivq_f32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn fused(self, factor: Self, term: Self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vfmaq_f32(term.0, self.0, factor.0) })
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        // SAFETY: see above. For a pair with a NaN, the instruction returns NaN.
        Self(unsafe { vmaxq_f32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        // SAFETY: see above. For a pair with a NaN, the instruction returns NaN.
        Self(unsafe { vminq_f32(self.0, other.0) })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: see above.
        Self(unsafe { vrndnq_f32(self.0) })
    }

    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        // SAFETY: see above.
        unsafe {
            let exponent = vaddq_s32(vcvtq_s32_f32(self.0), vdupq_n_s32(127));
            Self(vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent)))
        }
    }

    #[inline(always)]
    unsafe fn first(self) -> f32 {
        // SAFETY: see above.
        unsafe { vgetq_lane_f32::<0>(self.0) }
    }

    #[inline(always)]
    unsafe fn total(self) -> f32 {
        // SAFETY: see above.
        unsafe { vaddvq_f32(self.0) }
    }

    #[inline(always)]
    unsafe fn transpose<E: Element>(rows: [*const E; TURN], to: *mut f32, stride: usize) {
        for (index, row) in rows.into_iter().enumerate() {
            for column in 0..TURN {
                // SAFETY: see above.
                unsafe { *to.add(column * stride + index) = (*row.add(column)).widen() };
            }
        }
    }
}
