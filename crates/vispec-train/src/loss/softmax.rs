//! Softmax of rows of logits in host memory, in loops that compilers vectorise.

/// Number of parallel accumulators: enough for the widest registers.
const LANES: usize = 16;

/// `e^x` for `x <= 0`, within 2 units in the last place; 0 below -87.
///
/// The standard library's exponential is a function call per element, which would take longer than
/// the matrix product that computed the logits.
#[inline]
pub(super) fn exp_of_negative(x: f32) -> f32 {
    // x = n ln 2 + r with |r| <= ln 2 / 2, so that e^x = 2^n e^r. Adding and subtracting 1.5 * 2^23
    // rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    // Not `max`, which would drop NaN.
    let clamped = if x < -87.0 { -87.0 } else { x };
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, the first of which is exact in products with small integers.
    let r = (clamped - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4_f32;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5e-1;
    let e = p * r * r + r + 1.0;
    // The low bits of `shifted` hold n; shifted into the exponent, they make 2^n.
    let power = f32::from_bits((shifted.to_bits().wrapping_add(127)) << 23);
    if x < -87.0 { 0.0 } else { e * power }
}

/// Returns the sum of `of(element)`, in an order that depends only on the length.
pub(super) fn sum(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let mut chunks = values.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane += of(*value);
        }
    }
    let rest: f32 = chunks.remainder().iter().map(|value| of(*value)).sum();
    lanes.iter().sum::<f32>() + rest
}

/// Returns the sum of `of(a, b)` over two slices of equal length.
pub(super) fn sum_pairs(a: &[f32], b: &[f32], of: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (mut left, mut right) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    for (a, b) in (&mut left).zip(&mut right) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += of(*a, *b);
        }
    }
    let rest: f32 = left
        .remainder()
        .iter()
        .zip(right.remainder())
        .map(|(a, b)| of(*a, *b))
        .sum();
    lanes.iter().sum::<f32>() + rest
}

/// Returns the largest element; NaN elements are ignored.
fn max(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let mut chunks = values.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    let all = lanes.iter().chain(chunks.remainder());
    all.fold(f32::NEG_INFINITY, |best, value| best.max(*value))
}

/// Turns logits into probabilities in place, and returns the logits' log-sum-exp.
pub(super) fn softmax(logits: &mut [f32]) -> f32 {
    let max = max(logits);
    for logit in &mut *logits {
        *logit = exp_of_negative(*logit - max);
    }
    let total = sum(logits, |value| value);
    let scale = 1.0 / total;
    for value in logits {
        *value *= scale;
    }
    max + total.ln()
}

/// Returns the indices of the `k` largest values, largest first; ties are in order of index.
pub(super) fn top_k(values: &[f32], k: usize) -> Vec<usize> {
    let mut best: Vec<usize> = Vec::with_capacity(k + 1);
    for (index, value) in values.iter().enumerate() {
        if best.len() == k && best.last().is_some_and(|&last| *value <= values[last]) {
            continue;
        }
        let place = best.partition_point(|&other| values[other] >= *value);
        best.insert(place, index);
        best.truncate(k);
    }
    best
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn exponential_is_close(x in -86.0_f32..0.0) {
            let expected = f64::from(x).exp();
            let error = (f64::from(exp_of_negative(x)) - expected).abs();
            prop_assert!(error <= 3e-7 * expected, "{x}: {error}");
        }

        #[test]
        fn top_k_is_a_stable_sort(values in prop::collection::vec(-3_i8..4, 1..40), k in 1_usize..12) {
            let values: Vec<f32> = values.into_iter().map(f32::from).collect();
            let mut order: Vec<usize> = (0..values.len()).collect();
            order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
            order.truncate(k);
            prop_assert_eq!(top_k(&values, k), order);
        }
    }

    #[test]
    fn extremes() {
        assert!((exp_of_negative(0.0) - 1.0).abs() < 1e-7);
        assert!(exp_of_negative(-200.0).abs() < f32::MIN_POSITIVE);
        assert!(exp_of_negative(f32::NEG_INFINITY).abs() < f32::MIN_POSITIVE);
        assert!(exp_of_negative(f32::NAN).is_nan());
        let mut row = vec![0.0; 20];
        row[3] = f32::NAN;
        assert!(softmax(&mut row).is_nan());
        assert!(row.iter().all(|p| p.is_nan()));
    }
}
