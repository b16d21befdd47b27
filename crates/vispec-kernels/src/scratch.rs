//! Memory that a thread keeps from one call to the next.

use std::cell::Cell;

thread_local! {
    static KEPT: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Plain numbers, for which every pattern of bits is a value and which fit a [`Line`].
///
/// # Safety
/// That must hold, and the alignment must be at most that of a [`Line`].
pub(crate) unsafe trait Plain: Copy + Send + Sync {}

// SAFETY: floats and integers.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for half::bf16 {}
// SAFETY: as above.
unsafe impl Plain for u8 {}

/// A cache line, for its alignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u8; 64]);

impl Line {
    /// The bytes of some lines.
    pub(crate) fn bytes(lines: &[Self]) -> &[u8] {
        // SAFETY: a line is 64 initialised bytes, with nothing between one and the next.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), size_of_val(lines)) }
    }
}

/// A buffer of the thread, given back when dropped. A second one at the same time is new.
pub(crate) struct Scratch {
    lines: Vec<Line>,
}

impl Scratch {
    /// The buffer of this thread.
    pub(crate) fn take() -> Self {
        Self { lines: KEPT.take() }
    }

    /// `len` elements of any value, aligned to a cache line.
    pub(crate) fn slice<T: Plain>(&mut self, len: usize) -> &mut [T] {
        let lines = (len * size_of::<T>()).div_ceil(size_of::<Line>());
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0; 64]));
        }
        // SAFETY: the lines are initialised, long enough and aligned, and any bits are a `T`.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), len) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        KEPT.set(std::mem::take(&mut self.lines));
    }
}
