//! The product of a gate and what it lets through.

use burn::tensor::Tensor;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::bridge::{argument, element, empty, number, own, tensor};

const UNITS: u32 = 256;

#[cube(launch)]
fn gate_kernel<F: Float>(
    joined: &[F],
    out: &mut [F],
    width: usize,
    #[define(F)] _element: ElemType,
) {
    // Rows may be many more than cubes beside each other in any but the first direction.
    let row = CUBE_POS_X as usize;
    let column = (CUBE_POS_Y * CUBE_DIM_X + UNIT_POS) as usize;
    if column < width {
        let gate = f32::cast_from(joined[row * 2 * width + column]);
        let up = joined[row * 2 * width + width + column];
        let silu = F::cast_from(gate / (1.0f32 + (0.0f32 - gate).exp()));
        out[row * width + column] = silu * up;
    }
}

/// `silu(gate) * up` of rows that hold the gate and, behind it, the rest.
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
        CubeCount::Static(number(rows), number(width).div_ceil(UNITS), 1),
        CubeDim::new_1d(UNITS),
        argument(&joined),
        argument(&out),
        width,
        element(joined.dtype),
    );
    tensor(out)
}
