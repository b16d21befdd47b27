//! Products of a few rows with a panel of columns, in registers.

use super::Strided;
use crate::isa::Isa;
use crate::vector::{Routine, Vector, dispatch};

/// Registers per row of a panel, with 32 registers; `NARROW` is for 16 registers of eight lanes.
const WIDE: usize = 4;
const NARROW: usize = 2;

/// Returns the number of registers per row of a whole panel.
const fn panel_registers(lanes: usize) -> usize {
    if lanes == 8 { NARROW } else { WIDE }
}

/// Returns the number of floats in a register of `isa`.
pub(super) fn register_width(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 => 16,
        Isa::Avx2 | Isa::Portable => 8,
        Isa::Neon => 4,
    }
}

/// Returns the number of columns of a whole panel.
pub(super) fn panel_width(isa: Isa) -> usize {
    let lanes = register_width(isa);
    lanes * panel_registers(lanes)
}

/// The right matrix of a product, `[inner, columns]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panels {
    pub(super) start: *const f32,
    /// Distance from one row to the next, if there is a single panel.
    pub(super) row: usize,
    pub(super) inner: usize,
    pub(super) columns: usize,
}

impl Panels {
    /// Returns the panels that [`super::pack`] wrote.
    pub(crate) fn packed(isa: Isa, start: *const f32, inner: usize, columns: usize) -> Self {
        Self {
            start,
            row: columns.next_multiple_of(register_width(isa)),
            inner,
            columns,
        }
    }
}

/// Adds `a · b` to `out` for `rows` rows of `a` and all columns of `b`. Rows of `out` are `stride`
/// floats apart.
///
/// # Safety
/// The CPU must support `isa`; `a` must be readable and `out` writable at these places.
pub(crate) unsafe fn multiply(
    isa: Isa,
    a: Strided,
    rows: usize,
    b: Panels,
    out: *mut f32,
    stride: usize,
) {
    let inner = b.inner;
    // SAFETY: upheld by the caller.
    unsafe { multiply_part(isa, a, [rows, inner, b.columns], b, out, stride) };
}

/// Like [`multiply`], but only for the first `inner` rows and the first `columns` columns of `b`.
///
/// # Safety
/// Same as [`multiply`]; `b` must have these rows and columns.
pub(crate) unsafe fn multiply_part(
    isa: Isa,
    a: Strided,
    [rows, inner, columns]: [usize; 3],
    b: Panels,
    out: *mut f32,
    stride: usize,
) {
    let product = Product {
        a,
        rows,
        inner,
        columns,
        b,
        out,
        stride,
    };
    // SAFETY: upheld by the caller.
    unsafe { dispatch(isa, product) };
}

struct Product {
    a: Strided,
    rows: usize,
    inner: usize,
    columns: usize,
    b: Panels,
    out: *mut f32,
    stride: usize,
}

impl Routine for Product {
    #[inline(always)]
    unsafe fn run<V: Vector>(self) {
        let whole = panel_registers(V::LANES) * V::LANES;
        for first in (0..self.columns).step_by(whole) {
            let row = if self.b.columns <= whole {
                self.b.row
            } else {
                // The last panel has its stored width, however many columns are requested.
                let stored = whole.min(self.b.columns - first);
                stored.next_multiple_of(V::LANES)
            };
            let panel = Panel {
                start: self.b.start.wrapping_add(self.b.inner * first),
                row,
                first,
                columns: whole.min(self.columns - first),
            };
            // SAFETY: upheld by the caller.
            unsafe {
                match (panel.columns.div_ceil(V::LANES), V::LANES) {
                    (1, 8) => self.panel::<V, 6, 1>(&panel),
                    (_, 8) => self.panel::<V, 6, 2>(&panel),
                    (1, _) => self.panel::<V, 8, 1>(&panel),
                    (2, _) => self.panel::<V, 8, 2>(&panel),
                    (3, _) => self.panel::<V, 6, 3>(&panel),
                    _ => self.panel::<V, 6, 4>(&panel),
                }
            }
        }
    }
}

/// Some columns of the right matrix.
struct Panel {
    start: *const f32,
    /// Distance from one row to the next.
    row: usize,
    /// The first column.
    first: usize,
    columns: usize,
}

impl Product {
    /// Computes all rows, `ROWS` at a time.
    ///
    /// # Safety
    /// Same as [`multiply`]; the panel's columns must fit into `WIDTH` registers.
    #[inline(always)]
    unsafe fn panel<V: Vector, const ROWS: usize, const WIDTH: usize>(&self, panel: &Panel) {
        let mut row = 0;
        // SAFETY: upheld by the caller.
        unsafe {
            while row + ROWS <= self.rows {
                self.tile::<V, ROWS, WIDTH>(panel, row);
                row += ROWS;
            }
            while row + 2 <= self.rows {
                self.tile::<V, 2, WIDTH>(panel, row);
                row += 2;
            }
            if row < self.rows {
                self.tile::<V, 1, WIDTH>(panel, row);
            }
        }
    }

    /// Computes `ROWS` rows from `row` on.
    ///
    /// # Safety
    /// Same as [`Product::panel`].
    #[inline(always)]
    unsafe fn tile<V: Vector, const ROWS: usize, const WIDTH: usize>(
        &self,
        panel: &Panel,
        row: usize,
    ) {
        let place = |row: usize, register: usize| {
            self.out
                .wrapping_add(row * self.stride + panel.first + register * V::LANES)
        };
        let filled = |register: usize| panel.columns - register * V::LANES;
        // SAFETY: upheld by the caller; all registers but the last are full.
        unsafe {
            let mut sums = [[V::splat(0.0); WIDTH]; ROWS];
            for (index, sums) in sums.iter_mut().enumerate() {
                for (register, sum) in sums.iter_mut().enumerate() {
                    let from = place(row + index, register).cast_const();
                    *sum = if filled(register) >= V::LANES {
                        V::load(from)
                    } else {
                        V::load_part(from, filled(register))
                    };
                }
            }
            let mut a = self.a.start.wrapping_add(row * self.a.row);
            let mut b = panel.start;
            for _ in 0..self.inner {
                let mut columns = [V::splat(0.0); WIDTH];
                for (register, columns) in columns.iter_mut().enumerate() {
                    *columns = V::load(b.add(register * V::LANES));
                }
                for (index, sums) in sums.iter_mut().enumerate() {
                    let factor = V::splat(*a.add(index * self.a.row));
                    for (sum, columns) in sums.iter_mut().zip(columns) {
                        *sum = columns.fused(factor, *sum);
                    }
                }
                a = a.wrapping_add(self.a.column);
                b = b.wrapping_add(panel.row);
            }
            for (index, sums) in sums.into_iter().enumerate() {
                for (register, sum) in sums.into_iter().enumerate() {
                    let to = place(row + index, register);
                    if filled(register) >= V::LANES {
                        sum.store(to);
                    } else {
                        sum.store_part(to, filled(register));
                    }
                }
            }
        }
    }
}
