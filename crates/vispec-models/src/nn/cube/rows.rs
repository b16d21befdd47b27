//! Moves the cache rows of an accepted path to the front of the tree's rows.

use burn::tensor::{Int as IntKind, Tensor};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::bridge::{argument, element, ints, number, tensor, unique};

#[cube(launch)]
fn move_kernel<F: Float, I: Int>(
    keys: &mut [F],
    values: &mut [F],
    from: &[I],
    n_rows: usize,
    to: usize,
    capacity: usize,
    #[define(F, I)] _elements: [ElemType; 2],
) {
    // A unit moves one entry of all rows, in order. No row overwrites one that has yet to be moved.
    let size = CUBE_DIM_X as usize;
    let head = CUBE_POS_X as usize * capacity;
    let entry = UNIT_POS as usize;
    let mut i = 0usize;
    while i < n_rows {
        let source = (head + usize::cast_from(from[i])) * size + entry;
        let target = (head + to + i) * size + entry;
        keys[target] = keys[source];
        values[target] = values[source];
        i += 1;
    }
}

/// Moves the rows `from` of keys and values `[1, kv_heads, capacity, head_dim]` to consecutive rows
/// starting at `to`. `from` must be ascending and must not start before `to`.
pub(in crate::nn) fn move_rows(
    (keys, values): (Tensor<4>, Tensor<4>),
    from: &Tensor<1, IntKind>,
    to: usize,
) -> (Tensor<4>, Tensor<4>) {
    let [_, kv_heads, capacity, head_dim] = keys.dims();
    let (keys, values) = (unique(keys), unique(values));
    let [n_rows] = from.dims();
    let from = ints(from.clone());
    move_kernel::launch(
        &keys.client,
        CubeCount::Static(number(kv_heads), 1, 1),
        CubeDim::new_1d(number(head_dim)),
        argument(&keys),
        argument(&values),
        argument(&from),
        n_rows,
        to,
        capacity,
        [element(keys.dtype), element(from.dtype)],
    );
    (tensor(keys), tensor(values))
}
