//! The gating of the feed-forward block, as one kernel.

use burn::tensor::Tensor;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::bridge::{argument, element, empty, number, own, tensor};
use super::grid::{cubes_of_rows, row_of_cube};

const UNITS: usize = 256;

#[cube(launch)]
fn gate_kernel<F: Float>(
    joined: &[F],
    out: &mut [F],
    rows: usize,
    width: usize,
    #[define(F)] _element: ElemType,
) {
    let row = row_of_cube();
    let column = (CUBE_POS_Y * CUBE_DIM_X + UNIT_POS) as usize;
    if row < rows && column < width {
        let gate = f32::cast_from(joined[row * 2 * width + column]);
        let up = joined[row * 2 * width + width + column];
        let silu = F::cast_from(gate / (1.0f32 + (0.0f32 - gate).exp()));
        out[row * width + column] = silu * up;
    }
}

/// Computes `silu(gate) * up` for rows that contain `gate` followed by `up`.
///
/// # Shapes
/// `joined` `[rows, 2 * width]`, the result `[rows, width]`.
pub(super) fn gated(joined: Tensor<2>) -> Tensor<2> {
    let [rows, both] = joined.dims();
    let width = both / 2;
    let joined = own(joined);
    let out = empty(&joined, [rows, width]);
    gate_kernel::launch(
        &joined.client,
        cubes_of_rows(rows, width.div_ceil(UNITS)),
        CubeDim::new_1d(number(UNITS)),
        argument(&joined),
        argument(&out),
        rows,
        width,
        element(joined.dtype),
    );
    tensor(out)
}
