//! The smooth L1 distance between hidden states.

use burn::tensor::Tensor;

/// Returns the smooth L1 distance with threshold 1, summed over all elements, and its gradient
/// divided by `count`.
///
/// # Shapes
/// `output`, `target` and the gradient `[rows, hidden]`, the sum `[1]`.
#[expect(clippy::cast_precision_loss, reason = "numbers of elements are small")]
pub(crate) fn smooth_l1(
    output: Tensor<2>,
    target: Tensor<2>,
    count: usize,
) -> (Tensor<1>, Tensor<2>) {
    let difference = output - target;
    let slope = difference.clone().clamp(-1.0, 1.0);
    // d²/2 within the threshold and |d| - 1/2 outside both equal c (d - c/2), with c the clamped d.
    let sum = (slope.clone() * (difference - slope.clone() * 0.5)).sum();
    (sum, slope / count as f64)
}
