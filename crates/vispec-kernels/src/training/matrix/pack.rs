//! Packing of the right matrix of a product into panels of columns.

use super::Strided;
use super::tile::{panel_width, register_width};
use crate::isa::Isa;
use crate::vector::{Routine, TURN, Vector, dispatch};

/// Returns the number of floats of `[inner, columns]` in panels.
pub(crate) fn packed_len(isa: Isa, inner: usize, columns: usize) -> usize {
    inner * columns.next_multiple_of(register_width(isa))
}

/// Writes `from` `[inner, columns]` as contiguous panels. The rows of a panel are contiguous, too,
/// and filled up to whole registers with unspecified harmless values.
///
/// # Safety
/// The CPU must support `isa`, `from` must be readable, and `to` must have room for [`packed_len`]
/// floats.
pub(crate) unsafe fn pack(isa: Isa, from: Strided, inner: usize, columns: usize, to: *mut f32) {
    // SAFETY: upheld by the caller.
    unsafe {
        dispatch(
            isa,
            Pack {
                from,
                inner,
                columns,
                to,
                width: panel_width(isa),
            },
        );
    }
}

struct Pack {
    from: Strided,
    inner: usize,
    columns: usize,
    to: *mut f32,
    /// Number of columns of a panel.
    width: usize,
}

impl Routine for Pack {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        for first in (0..self.columns).step_by(self.width) {
            let len = self.width.min(self.columns - first);
            let stride = len.next_multiple_of(V::LANES);
            // SAFETY: upheld by the caller; the panels before this one are full.
            unsafe {
                let to = self.to.add(self.inner * first);
                let from = self.from.start.add(first * self.from.column);
                if self.from.row == 1 {
                    self.turn::<V>(from, len, to, stride);
                } else {
                    self.copy(from, len, to, stride);
                }
            }
        }
    }
}

impl Pack {
    /// Copies contiguous rows.
    ///
    /// # Safety
    /// `from` must have `inner` rows of `len` columns, and `to` must have room for rows of `stride`
    /// floats.
    #[inline(always)]
    unsafe fn copy(&self, from: *const f32, len: usize, to: *mut f32, stride: usize) {
        for row in 0..self.inner {
            // SAFETY: upheld by the caller.
            unsafe {
                let (from, to) = (from.add(row * self.from.row), to.add(row * stride));
                if self.from.column == 1 {
                    to.copy_from_nonoverlapping(from, len);
                } else {
                    for column in 0..len {
                        *to.add(column) = *from.add(column * self.from.column);
                    }
                }
                for column in len..stride {
                    *to.add(column) = 0.0;
                }
            }
        }
    }

    /// Copies from a matrix with contiguous columns, in transposed blocks.
    ///
    /// # Safety
    /// Same as [`Pack::copy`]; the CPU must also support the instruction set.
    #[inline(always)]
    unsafe fn turn<V: Vector>(&self, from: *const f32, len: usize, to: *mut f32, stride: usize) {
        let rest = self.inner % TURN;
        for first in (0..stride).step_by(TURN) {
            let count = TURN.min(stride - first);
            // SAFETY: upheld by the caller; blocks lie within the panel.
            unsafe {
                // If registers have fewer lanes than a block has rows, the last block may be
                // narrower.
                let whole = if count == TURN { self.inner - rest } else { 0 };
                let column =
                    |index: usize| from.add((first + index).min(len - 1) * self.from.column);
                let columns: [*const f32; TURN] = std::array::from_fn(column);
                for row in (0..whole).step_by(TURN) {
                    let columns = columns.map(|column| column.add(row));
                    V::transpose(columns, to.add(row * stride + first), stride);
                }
                for row in whole..self.inner {
                    let to = to.add(row * stride + first);
                    for (index, column) in columns[..count].iter().enumerate() {
                        *to.add(index) = *column.add(row);
                    }
                }
            }
        }
    }
}
