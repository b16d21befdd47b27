//! Memory that a thread keeps from one call to the next.

use std::cell::Cell;

thread_local! {
    static KEPT: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Plain numbers for which every bit pattern is valid, and which fit a [`Line`].
///
/// # Safety
/// Every bit pattern must be valid, and the alignment must be at most that of a [`Line`].
pub(crate) unsafe trait Plain: Copy + Send + Sync {}

// SAFETY: floats and integers.
unsafe impl Plain for f32 {}
// SAFETY: see above.
unsafe impl Plain for half::bf16 {}
// SAFETY: see above.
unsafe impl Plain for u8 {}

/// A cache line of bytes, with its alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u8; 64]);

impl Line {
    /// Returns the bytes of some lines.
    pub(crate) fn bytes(lines: &[Self]) -> &[u8] {
        // SAFETY: a line is 64 initialised bytes, without padding between lines.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), size_of_val(lines)) }
    }
}

/// The buffer of a thread, returned when dropped. A second one taken meanwhile is allocated anew.
pub(crate) struct Scratch {
    lines: Vec<Line>,
}

impl Scratch {
    /// Takes the buffer of this thread.
    pub(crate) fn take() -> Self {
        Self { lines: KEPT.take() }
    }

    /// Returns `len` elements with unspecified values, aligned to a cache line.
    pub(crate) fn slice<T: Plain>(&mut self, len: usize) -> &mut [T] {
        let lines = (len * size_of::<T>()).div_ceil(size_of::<Line>());
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0; 64]));
        }
        // SAFETY: the lines are initialised, long enough and aligned, and any bit pattern is a
        // valid `T`.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), len) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        KEPT.set(std::mem::take(&mut self.lines));
    }
}
