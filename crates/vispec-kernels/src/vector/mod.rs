//! Registers of 32-bit floats, over which attention and the small operations are generic.

mod portable;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

use half::bf16;

use crate::isa::Isa;

/// Code that is generic over the registers of an instruction set.
pub(crate) trait Routine {
    /// Runs the code.
    ///
    /// # Safety
    /// The CPU must support the instruction set of `V`.
    unsafe fn run<V: Vector>(self);
}

/// Runs `routine` with the registers of `isa`.
///
/// # Safety
/// The CPU must support `isa`.
pub(crate) unsafe fn dispatch(isa: Isa, routine: impl Routine) {
    // SAFETY: upheld by the caller.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::enter(routine),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 => avx512::enter(routine),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => neon::enter(routine),
            #[allow(
                unreachable_patterns,
                reason = "which arms are left depends on the target"
            )]
            _ => routine.run::<portable::Lanes>(),
        }
    }
}

/// Maximum number of lanes of any register.
pub(crate) const MAX_LANES: usize = 16;
/// Number of rows and columns of the blocks that [`Vector::transpose`] handles.
pub(crate) const TURN: usize = 8;

/// A register of floats. Operations work lane by lane, except [`Vector::total`],
/// [`Vector::greatest`] and [`Vector::transpose`].
///
/// # Safety
/// For all functions, the CPU must support the instruction set. For those that take a pointer, the
/// elements it points to must be readable or writable, respectively.
pub(crate) trait Vector: Copy + 'static {
    /// Number of floats.
    const LANES: usize;

    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn load_bf16(from: *const bf16) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    unsafe fn mul(self, other: Self) -> Self;
    unsafe fn div(self, other: Self) -> Self;
    /// Returns `self * factor + term`, rounded once where the hardware supports it.
    unsafe fn fused(self, factor: Self, term: Self) -> Self;
    /// Returns the greater value; a NaN in `self` is kept.
    unsafe fn max(self, other: Self) -> Self;
    /// Returns the lesser value; a NaN in `self` is kept.
    unsafe fn min(self, other: Self) -> Self;
    /// Returns the nearest integer.
    unsafe fn round(self) -> Self;
    /// Returns two to the power of `self`, an integer from -126 to 127.
    unsafe fn power_of_two(self) -> Self;
    /// Returns the sum of all lanes, added in a fixed order.
    unsafe fn total(self) -> f32;
    /// Returns the first lane.
    unsafe fn first(self) -> f32;
    /// Writes `rows` of [`TURN`] elements each as columns: element `c` of row `r` goes to
    /// `to[c * stride + r]`.
    unsafe fn transpose<E: Element>(rows: [*const E; TURN], to: *mut f32, stride: usize);

    /// Loads the first `len` floats; the other lanes are zero.
    #[inline(always)]
    unsafe fn load_part<E: Element>(from: *const E, len: usize) -> Self {
        let mut padded = [E::ZERO; MAX_LANES];
        // SAFETY: `len` elements are readable, as guaranteed by the caller, and fit the buffer.
        unsafe {
            padded
                .as_mut_ptr()
                .copy_from_nonoverlapping(from, len.min(Self::LANES));
            E::load(padded.as_ptr())
        }
    }

    /// Stores the first `len` floats.
    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, len: usize) {
        let mut whole = [0.0; MAX_LANES];
        // SAFETY: `len` floats are writable, as guaranteed by the caller.
        unsafe {
            self.store(whole.as_mut_ptr());
            to.copy_from_nonoverlapping(whole.as_ptr(), len.min(Self::LANES));
        }
    }

    /// Returns the greatest lane; a NaN may be kept or dropped.
    #[inline(always)]
    unsafe fn greatest(self) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; MAX_LANES];
        // SAFETY: the buffer holds a register.
        unsafe { self.store(lanes.as_mut_ptr()) };
        lanes.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    /// Returns the exponential function, within 2 units in the last place. It saturates at about
    /// `exp(88)` and `exp(-87)`. NaN is kept.
    #[inline(always)]
    unsafe fn exp(self) -> Self {
        // SAFETY: upheld by the caller.
        unsafe {
            let x = self.min(Self::splat(88.0)).max(Self::splat(-87.0));
            let power = x.mul(Self::splat(std::f32::consts::LOG2_E)).round();
            // ln 2 in two parts, the first with few bits: Cody and Waite's range reduction.
            let x = power.fused(Self::splat(-0.693_359_4), x);
            let x = power.fused(Self::splat(2.121_944_4e-4), x);
            let mut series = Self::splat(1.987_569_2e-4); // minimax on [-ln 2 / 2, ln 2 / 2]
            for coefficient in [
                1.398_2e-3,
                8.333_452e-3,
                4.166_579_6e-2,
                1.666_666_5e-1,
                0.5,
            ] {
                series = series.fused(x, Self::splat(coefficient));
            }
            let exp = series.fused(x.mul(x), x.add(Self::splat(1.0)));
            exp.mul(power.power_of_two())
        }
    }
}

/// An element type of a cache, widened when loaded.
pub(crate) trait Element: Copy + Send + Sync + 'static {
    /// Zero.
    const ZERO: Self;

    /// Widens one element.
    fn widen(self) -> f32;

    /// Loads and widens as many elements as a register has lanes.
    ///
    /// # Safety
    /// The CPU must support the instruction set, and the elements must be readable.
    unsafe fn load<V: Vector>(from: *const Self) -> V;
}

impl Element for f32 {
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: upheld by the caller.
        unsafe { V::load(from) }
    }
}

impl Element for bf16 {
    const ZERO: Self = bf16::ZERO;

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    #[inline(always)]
    unsafe fn load<V: Vector>(from: *const Self) -> V {
        // SAFETY: upheld by the caller.
        unsafe { V::load_bf16(from) }
    }
}

#[cfg(test)]
mod tests;
