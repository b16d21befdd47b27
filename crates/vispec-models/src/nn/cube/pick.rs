//! Tokens picked from rows of logits: the best one, or a draw from the softmax at a temperature.

use burn::tensor::{DType, Tensor, TensorData};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::bridge::{argument, element, number, own, tensor};

/// Units of a cube, which picks from one row.
const UNITS: usize = 256;

/// Probability of a token, up to a factor that all of a row share.
#[cube]
fn weight<F: Float>(logit: F, greatest: f32, scale: f32) -> f32 {
    ((f32::cast_from(logit) - greatest) * scale).exp()
}

/// The first of the tokens from `from` to `to` at which the weights, which come to `sum` before them,
/// exceed `target`; if rounding leaves none, the last that has any.
#[cube]
fn drawn<F: Float>(
    logits: &[F],
    from: usize,
    to: usize,
    greatest: f32,
    scale: f32,
    before: f32,
    target: f32,
) -> usize {
    let mut chosen = from;
    let mut sum = before;
    let mut i = from;
    while i < to {
        let weight = weight::<F>(logits[i], greatest, scale);
        if weight > 0.0f32 {
            chosen = i;
            sum += weight;
            if sum > target {
                i = to;
            }
        }
        i += 1;
    }
    chosen
}

/// Units of a cube share a row: each takes a stretch of it, so that sums go on in the order of tokens.
///
/// Of each row `out` holds the token and the sum of its weights, which is finite if the row has neither
/// NaN nor +inf and something besides -inf.
#[cube(launch)]
fn pick_kernel<F: Float>(
    logits: &[F],
    picks: &[f32],
    out: &mut [f32],
    width: usize,
    stretch: usize,
    #[comptime] units: usize,
    #[define(F)] _element: ElemType,
) {
    let row = CUBE_POS_X as usize;
    let unit = UNIT_POS as usize;
    let start = row * width;
    let end = start + width;
    let mut from = start + unit * stretch;
    let mut to = from + stretch;
    // A stretch of no tokens stands for the first token.
    let mut best = from;
    if from >= end {
        from = end;
        best = start;
    }
    if to > end {
        to = end;
    }
    let mut greatest = f32::cast_from(logits[best]);
    let mut i = from;
    while i < to {
        let value = f32::cast_from(logits[i]);
        if value > greatest {
            greatest = value;
            best = i;
        }
        i += 1;
    }
    let mut values = Shared::<[f32]>::new_slice(units);
    let mut tokens = Shared::<[u32]>::new_slice(units);
    values[unit] = greatest;
    tokens[unit] = (best - start) as u32;
    sync_cube();
    // All read the same, in the same order. A unit's tokens come before those of the next.
    let mut token = tokens[0];
    greatest = values[0];
    for other in 1..units {
        if values[other] > greatest {
            greatest = values[other];
            token = tokens[other];
        }
    }
    sync_cube();

    let mut scale = picks[2 * row];
    let draws = scale > 0.0f32;
    if !draws {
        scale = 1.0f32;
    }
    let mut sum = 0.0f32;
    let mut i = from;
    while i < to {
        sum += weight::<F>(logits[i], greatest, scale);
        i += 1;
    }
    values[unit] = sum;
    sync_cube();
    let mut before = 0.0f32;
    let mut total = 0.0f32;
    let mut last = 0usize;
    for other in 0..units {
        if other == unit {
            before = total;
        }
        total += values[other];
        if values[other] > 0.0f32 {
            last = other;
        }
    }
    if unit == 0 {
        out[2 * row + 1] = total;
        if !draws {
            out[2 * row] = f32::cast_from(token);
        }
    }
    let target = picks[2 * row + 1] * total;
    let is_here = before <= target && target < before + sum;
    // Rounding may leave something over behind the last weight.
    let is_left = target >= total && unit == last;
    if draws && (is_here || is_left) {
        let place = drawn::<F>(logits, from, to, greatest, scale, before, target);
        out[2 * row] = f32::cast_from((place - start) as u32);
    }
}

/// Picks a token from each row, in one launch. What comes of a row does not depend on the others.
///
/// Sums are in f32, so that a number nearer than about a millionth to the border between two tokens may
/// draw the other one than the host does.
///
/// # Arguments
/// * `picks` - for each row what differences of logits are multiplied by, 0 for the best token, and
///   the number that drives a draw.
///
/// # Shapes
/// `logits` `[rows, vocab]`; the result `[rows, 2]` in f32: the token, and a number that is finite if a
/// token may be picked.
pub(crate) fn picked_rows(logits: Tensor<2>, picks: &[[f32; 2]]) -> Tensor<2> {
    let [rows, width] = logits.dims();
    assert_eq!(picks.len(), rows, "a pick for each row");
    let like = (&logits.device(), DType::F32);
    let picks = TensorData::new(picks.concat(), [rows, 2]);
    let picks = own(Tensor::<2>::from_data(picks, like));
    let out = own(Tensor::<2>::empty([rows, 2], like));
    let logits = own(logits);
    pick_kernel::launch(
        &logits.client,
        CubeCount::Static(number(rows), 1, 1),
        CubeDim::new_1d(number(UNITS)),
        argument(&logits),
        argument(&picks),
        argument(&out),
        width,
        width.div_ceil(UNITS),
        UNITS,
        element(logits.dtype),
    );
    tensor(out)
}
