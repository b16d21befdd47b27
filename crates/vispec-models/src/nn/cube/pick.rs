//! Picks a token from each row of logits: the best one, or a sample from the softmax at a
//! temperature.

use burn::tensor::{DType, Tensor, TensorData};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

use super::bridge::{argument, element, number, own, tensor};

/// Number of units of a cube. A cube picks from one row.
const UNITS: usize = 256;

/// Returns the unnormalised probability of a token. All tokens of a row share the same factor.
#[cube]
fn weight<F: Float>(logit: F, greatest: f32, scale: f32) -> f32 {
    ((f32::cast_from(logit) - greatest) * scale).exp()
}

/// Returns the first token of `from..to` at which the cumulative weight exceeds `target`, starting
/// from the sum `before`. If no token does, because of rounding, returns the last token with a
/// positive weight.
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

/// The units of a cube share a row. Each takes a contiguous stretch of it, so that cumulative sums
/// follow the order of tokens.
///
/// For each row, `out` contains the token and the sum of the row's weights. The sum is finite if
/// the row contains neither NaN nor +inf and at least one value other than -inf.
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
    // A unit with an empty stretch represents the first token.
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
    // All units read the same values in the same order. The tokens of a unit come before those of
    // the next unit.
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
    // Because of rounding, the target may lie after the last weight.
    let is_left = target >= total && unit == last;
    if draws && (is_here || is_left) {
        let place = drawn::<F>(logits, from, to, greatest, scale, before, target);
        out[2 * row] = f32::cast_from((place - start) as u32);
    }
}

/// Picks a token from each row in one launch. The result of a row does not depend on the other
/// rows.
///
/// Sums are in f32. If the random number is within about a millionth of the boundary between two
/// tokens, the host may therefore sample the other token.
///
/// # Arguments
/// * `picks` - for each row, the factor for differences of logits (0 picks the best token) and the
///   random number for sampling.
///
/// # Shapes
/// `logits` `[rows, vocab]`; the result is `[rows, 2]` in f32: the token, and a number that is
/// finite if the picked token is valid.
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
