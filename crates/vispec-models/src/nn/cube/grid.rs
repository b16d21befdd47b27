//! Launch grids for the rows of a pass, which may exceed the maximum number of cubes in one
//! dimension.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::bridge::number;

/// Maximum number of cubes in one dimension, a limit of wgpu.
const CUBES: usize = u16::MAX as usize;

/// Returns a grid with `of_row` cubes per row, which are in the second dimension. Rows that exceed
/// the first dimension continue in the third, so some cubes have no row (see [`row_of_cube`]).
pub(super) fn cubes_of_rows(rows: usize, of_row: usize) -> CubeCount {
    let (x, z) = (rows.min(CUBES), rows.div_ceil(CUBES));
    CubeCount::Static(number(x), number(of_row), number(z))
}

/// Returns the row of a cube in a grid of [`cubes_of_rows`].
#[cube]
pub(super) fn row_of_cube() -> usize {
    (CUBE_POS_Z * CUBE_COUNT_X + CUBE_POS_X) as usize
}

#[cfg(all(test, feature = "wgpu"))]
mod tests;
