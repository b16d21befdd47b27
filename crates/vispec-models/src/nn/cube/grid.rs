//! Cubes for the rows of a pass, which may be more than a device has in one direction.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::bridge::number;

/// Cubes in one direction: wgpu has no more.
const CUBES: usize = u16::MAX as usize;

/// Cubes for each row, and for each of these so many in the second direction. Rows that the first
/// direction does not hold go on in the third, so that some cubes have no row ([`row_of_cube`]).
pub(super) fn cubes_of_rows(rows: usize, of_row: usize) -> CubeCount {
    let (x, z) = (rows.min(CUBES), rows.div_ceil(CUBES));
    CubeCount::Static(number(x), number(of_row), number(z))
}

/// The row of a cube among those of [`cubes_of_rows`].
#[cube]
pub(super) fn row_of_cube() -> usize {
    (CUBE_POS_Z * CUBE_COUNT_X + CUBE_POS_X) as usize
}

#[cfg(all(test, feature = "wgpu"))]
mod tests;
