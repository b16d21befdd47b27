//! Products of matrices in any layout, for training: `out += a · b`.
//!
//! Each element of `out` has one accumulator, to which products are added in the order of the inner
//! axis. So its bits depend neither on the number of rows nor on the number of threads.

mod pack;
mod tile;

pub(crate) use self::pack::{pack, packed_len};
pub(crate) use self::tile::{Panels, multiply, multiply_part};
use crate::isa::Isa;
use crate::pool::{self, Out};
use crate::scratch::Scratch;

/// Tasks get multiples of this number of rows of `a`. Every tile height divides it.
const ROW_STEP: usize = 24;
/// Number of tasks per thread.
const TASKS_PER_THREAD: usize = 2;
/// Number of rows of `b` that are processed at a time. Those of a panel stay in a cache, and so do
/// the columns of a transposed `a`, which share few cache sets if they are a power of two apart.
const DEPTH: usize = 256;
/// Maximum row length, in floats, up to which `b` is read in place instead of being packed.
const NEAR: usize = 256;

/// A borrowed matrix.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    values: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// Creates a matrix with contiguous rows.
    ///
    /// # Panics
    /// If `values` does not have `rows * columns` elements.
    #[must_use]
    pub fn new(values: &'a [f32], rows: usize, columns: usize) -> Self {
        assert_eq!(
            values.len(),
            rows * columns,
            "matrix: `values` must be [rows, columns]"
        );
        Self {
            values,
            rows,
            columns,
            row_stride: columns,
            column_stride: 1,
        }
    }

    /// Returns the transposed matrix, backed by the same memory.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self {
            values: self.values,
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
        }
    }

    /// Returns the part from row `row` and column `column` on.
    fn from(&self, row: usize, column: usize) -> Strided {
        let start = row * self.row_stride + column * self.column_stride;
        Strided {
            start: self.values.as_ptr().wrapping_add(start),
            row: self.row_stride,
            column: self.column_stride,
        }
    }
}

/// Strided matrix: element `(i, j)` is at `start + i * row + j * column`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Strided {
    pub(crate) start: *const f32,
    pub(crate) row: usize,
    pub(crate) column: usize,
}

/// See [`crate::Kernels::add_product`].
pub(crate) fn add_product(isa: Isa, a: Matrix<'_>, b: Matrix<'_>, out: &mut [f32]) {
    let (rows, inner, columns) = (a.rows, a.columns, b.columns);
    assert_eq!(
        b.rows, inner,
        "add_product: `b` must have as many rows as `a` has columns"
    );
    assert_eq!(
        out.len(),
        rows * columns,
        "add_product: `out` must be [rows of a, columns of b]"
    );
    if out.is_empty() || inner == 0 {
        return;
    }
    let width = tile::panel_width(isa);
    let panels = columns.div_ceil(width);
    let parallel = pool::pays(rows * inner * columns);
    let parts = if parallel {
        (TASKS_PER_THREAD * pool::n_threads()).div_ceil(panels)
    } else {
        1
    };
    let height = rows.div_ceil(parts).next_multiple_of(ROW_STEP);
    let parts = rows.div_ceil(height);
    let in_place = b.column_stride == 1
        && b.row_stride <= NEAR
        && columns.is_multiple_of(tile::register_width(isa));
    let to = Out(out.as_mut_ptr());
    let work = |task: usize| {
        let (panel, part) = (task / parts, task % parts);
        let first = panel * width;
        let len = width.min(columns - first);
        let (top, bottom) = (part * height, rows.min((part + 1) * height));
        let mut scratch = Scratch::take();
        for start in (0..inner).step_by(DEPTH) {
            let depth = DEPTH.min(inner - start);
            // SAFETY: `Kernels` guarantees that `isa` is available; all places lie in the three
            // matrices, whose lengths were checked; tasks have disjoint blocks of `out`.
            unsafe {
                let from = b.from(start, first);
                let panels = if in_place {
                    Panels {
                        start: from.start,
                        row: b.row_stride,
                        inner: depth,
                        columns: len,
                    }
                } else {
                    let packed = scratch.slice(packed_len(isa, depth, len));
                    pack(isa, from, depth, len, packed.as_mut_ptr());
                    Panels::packed(isa, packed.as_ptr(), depth, len)
                };
                let to = to.at(top * columns + first);
                multiply(isa, a.from(top, start), bottom - top, panels, to, columns);
            }
        }
    };
    if parallel {
        pool::for_each(panels * parts, work);
    } else {
        (0..panels * parts).for_each(work);
    }
}
