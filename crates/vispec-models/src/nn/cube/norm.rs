//! Root-mean-square norms, fused with the addition that precedes most of them.

use burn::tensor::Tensor;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::Stream;
use super::bridge::{argument, element, empty, number, own, tensor};
use super::grid::{cubes_of_rows, row_of_cube};
use crate::nn::norm::RmsNorm;

/// Number of units of a cube. A cube normalises one row.
const UNITS: usize = 256;

/// Returns to each unit the sum of `value` over all units of the cube. The number of units must be
/// a power of two.
#[cube]
fn sum_of_cube(value: f32, #[comptime] units: usize) -> f32 {
    let mut parts = Shared::<[f32]>::new_slice(units);
    let unit = UNIT_POS as usize;
    parts[unit] = value;
    sync_cube();
    #[unroll]
    for step in 1..=comptime!(units.ilog2()) {
        let half = comptime!(units >> step);
        if unit < half {
            let other = parts[unit + half];
            parts[unit] += other;
        }
        sync_cube();
    }
    parts[0]
}

/// Returns the factor for the entries of a row, given the sum of the squares of this unit's
/// entries.
#[cube]
fn scale_of_row(squares: f32, width: usize, eps: f32, #[comptime] units: usize) -> f32 {
    let mean = sum_of_cube(squares, units) / f32::cast_from(width);
    1.0f32 / (mean + eps).sqrt()
}

/// Scales an entry in f32 and multiplies it by its weight in its own type.
#[cube]
fn normed<F: Float>(value: F, weight: F, scale: f32) -> F {
    F::cast_from(f32::cast_from(value) * scale) * weight
}

#[cube(launch)]
fn norm_kernel<F: Float>(
    x: &[F],
    weight: &[F],
    out: &mut [F],
    eps: f32,
    rows: usize,
    width: usize,
    #[comptime] units: usize,
    #[define(F)] _element: ElemType,
) {
    let row = row_of_cube();
    if row >= rows {
        terminate!();
    }
    let start = row * width;
    let unit = UNIT_POS as usize;
    let mut squares = 0.0f32;
    let mut i = unit;
    while i < width {
        let value = f32::cast_from(x[start + i]);
        squares += value * value;
        i += units;
    }
    let scale = scale_of_row(squares, width, eps, units);
    let mut i = unit;
    while i < width {
        out[start + i] = normed::<F>(x[start + i], weight[i], scale);
        i += units;
    }
}

#[cube(launch)]
fn add_norm_kernel<F: Float>(
    x: &[F],
    more: &[F],
    weight: &[F],
    sum: &mut [F],
    out: &mut [F],
    eps: f32,
    rows: usize,
    width: usize,
    #[comptime] units: usize,
    #[define(F)] _element: ElemType,
) {
    let row = row_of_cube();
    if row >= rows {
        terminate!();
    }
    let start = row * width;
    let unit = UNIT_POS as usize;
    let mut squares = 0.0f32;
    let mut i = unit;
    while i < width {
        let added = x[start + i] + more[start + i];
        sum[start + i] = added;
        let value = f32::cast_from(added);
        squares += value * value;
        i += units;
    }
    let scale = scale_of_row(squares, width, eps, units);
    let mut i = unit;
    while i < width {
        // Each unit reads only what it wrote itself.
        out[start + i] = normed::<F>(sum[start + i], weight[i], scale);
        i += units;
    }
}

/// Settles the stream `[rows, hidden]` and returns it normalised, in one launch.
pub(super) fn settle_and_norm(stream: &mut Stream, norm: &RmsNorm) -> Tensor<2> {
    let [rows, width] = stream.settled.dims();
    let x = own(stream.settled.clone());
    let weight = own(norm.weight());
    let out = empty(&x, [rows, width]);
    #[expect(clippy::cast_possible_truncation, reason = "computed in f32")]
    let eps = norm.eps() as f32;
    let cubes = cubes_of_rows(rows, 1);
    let units = CubeDim::new_1d(number(UNITS));
    let client = x.client.clone();
    let element = element(x.dtype);
    match stream.pending.take() {
        None => norm_kernel::launch(
            &client,
            cubes,
            units,
            argument(&x),
            argument(&weight),
            argument(&out),
            eps,
            rows,
            width,
            UNITS,
            element,
        ),
        Some(pending) => {
            let sum = empty(&x, [rows, width]);
            add_norm_kernel::launch(
                &client,
                cubes,
                units,
                argument(&x),
                own(pending).into_buffer_arg(),
                argument(&weight),
                argument(&sum),
                argument(&out),
                eps,
                rows,
                width,
                UNITS,
                element,
            );
            stream.settled = tensor(sum);
        }
    }
    tensor(out)
}
