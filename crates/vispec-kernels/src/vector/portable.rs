//! A register emulated by an array. A fused operation rounds twice, where hardware rounds once.

use half::bf16;

use super::{Element, TURN, Vector};

/// Eight floats.
#[derive(Clone, Copy)]
pub(crate) struct Lanes([f32; 8]);

impl Lanes {
    #[inline(always)]
    fn with(self, other: Self, combine: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|lane| {
            combine(self.0[lane], other.0[lane])
        }))
    }
}

impl Vector for Lanes {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 8])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: upheld by the caller; an array has the alignment of its elements.
        Self(unsafe { from.cast::<[f32; 8]>().read() })
    }

    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: upheld by the caller; an array has the alignment of its elements.
        Self(unsafe { from.cast::<[bf16; 8]>().read() }.map(Element::widen))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: upheld by the caller; an array has the alignment of its elements.
        unsafe { to.cast::<[f32; 8]>().write(self.0) };
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        self.with(other, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        self.with(other, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn mul(self, other: Self) -> Self {
        self.with(other, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn div(self, other: Self) -> Self {
        self.with(other, |a, b| a / b)
    }

    #[inline(always)]
    unsafe fn fused(self, factor: Self, term: Self) -> Self {
        Self(std::array::from_fn(|lane| {
            self.0[lane] * factor.0[lane] + term.0[lane]
        }))
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        self.with(other, |a, b| if b > a { b } else { a })
    }

    #[inline(always)]
    unsafe fn min(self, other: Self) -> Self {
        self.with(other, |a, b| if b < a { b } else { a })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        Self(self.0.map(f32::round_ties_even))
    }

    #[inline(always)]
    unsafe fn power_of_two(self) -> Self {
        Self(
            self.0
                .map(|power| f32::from_bits(((power as i32 + 127) as u32) << 23)),
        )
    }

    #[inline(always)]
    unsafe fn first(self) -> f32 {
        self.0[0]
    }

    #[inline(always)]
    unsafe fn total(self) -> f32 {
        let [a, b, c, d, e, f, g, h] = self.0;
        ((a + e) + (c + g)) + ((b + f) + (d + h))
    }

    #[inline(always)]
    unsafe fn transpose<E: Element>(rows: [*const E; TURN], to: *mut f32, stride: usize) {
        for (index, row) in rows.into_iter().enumerate() {
            for column in 0..TURN {
                // SAFETY: upheld by the caller.
                unsafe { *to.add(column * stride + index) = (*row.add(column)).widen() };
            }
        }
    }
}
