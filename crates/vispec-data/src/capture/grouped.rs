//! Group-wise 8-bit quantisation: neighbouring values share a scale.

use half::bf16;
use ndarray::Array2;

/// Number of values of a row that share a scale; the last group of a row may be shorter.
pub(super) const GROUP: usize = 64;

/// Largest magnitude of an 8-bit number; the range is symmetric.
const LARGEST: f32 = 127.0;

/// Larger values might not be finite after decoding.
const LIMIT: f32 = f32::MAX / 2.0;

/// Rows in 8 bits; a value is its number times the scale of its group.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Grouped {
    /// `[rows, hidden]`, row-major.
    pub(super) numbers: Vec<i8>,
    /// `[rows, groups of a row]`, row-major.
    pub(super) scales: Vec<bf16>,
}

/// Returns the number of groups in a row of `width` values.
pub(super) fn n_groups(width: usize) -> usize {
    width.div_ceil(GROUP)
}

impl Grouped {
    /// Rounds to nearest. The error of a value is at most half the scale of its group; the scale is
    /// 1/127 of the largest magnitude in the group, rounded up to bf16. `Err` holds the first value
    /// that is not finite, or would not be finite after decoding.
    pub(super) fn round(vectors: &Array2<f32>, rows: &[usize]) -> Result<Self, f32> {
        let width = vectors.ncols();
        let mut numbers = Vec::with_capacity(rows.len() * width);
        let mut scales = Vec::with_capacity(rows.len() * n_groups(width));
        let mut values = Vec::with_capacity(width);
        for &row in rows {
            values.clear();
            values.extend(vectors.row(row));
            for group in values.chunks(GROUP) {
                let fits = |value: &&f32| value.abs() <= LIMIT;
                if let Some(&value) = group.iter().find(|value| !fits(value)) {
                    return Err(value);
                }
                let largest = group
                    .iter()
                    .fold(0.0_f32, |max, value| max.max(value.abs()));
                let scale = rounded_up(largest / LARGEST);
                let factor = scale.to_f32();
                scales.push(scale);
                numbers.extend(group.iter().map(|value| number(value / factor)));
            }
        }
        Ok(Self { numbers, scales })
    }

    /// Returns the decoded values, `[rows * width]`.
    pub(super) fn values(&self, width: usize) -> Vec<f32> {
        let rows = self.numbers.chunks(width.max(1));
        let scales = self.scales.chunks(n_groups(width).max(1));
        let groups = rows
            .zip(scales)
            .flat_map(|(row, scales)| row.chunks(GROUP).zip(scales));
        // A 7-bit times an 8-bit significand is exact in f32.
        groups
            .flat_map(|(group, scale)| {
                let scale = scale.to_f32();
                group.iter().map(move |&number| f32::from(number) * scale)
            })
            .collect()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "it is clamped")]
fn number(value: f32) -> i8 {
    value.round_ties_even().clamp(-LARGEST, LARGEST) as i8
}

/// Returns the smallest bf16 that is at least `value` (which is not negative) and at least the
/// smallest normal number, so that it is a valid divisor.
fn rounded_up(value: f32) -> bf16 {
    let bits = value.max(f32::MIN_POSITIVE).to_bits();
    let upper = bits.div_ceil(1 << 16);
    bf16::from_f32(f32::from_bits(upper << 16))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn each_group_has_its_own_scale() {
        let width = GROUP + 2;
        let vectors = Array2::from_shape_fn([2, width], |(row, axis)| match (row, axis) {
            (1, 3) => -1270.0,
            (1, axis) if axis >= GROUP => 0.0127,
            _ => 0.0,
        });
        let stored = Grouped::round(&vectors, &[1]).unwrap();
        assert_eq!(stored.scales.len(), 2);
        assert_eq!(stored.scales[0], bf16::from_f32(10.0));
        let values = stored.values(width);
        assert_eq!(values[3..5], [-1270.0, 0.0]);
        assert!((values[GROUP] / 0.0127 - 1.0).abs() < 0.01);
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
            let vectors = Array2::from_elem([1, 3], value);
            let found = Grouped::round(&vectors, &[0]).unwrap_err();
            assert_eq!(found.to_bits(), value.to_bits());
        }
    }

    proptest! {
        #[test]
        fn errors_are_at_most_half_a_scale(
            values in prop::collection::vec(
                prop_oneof![
                    8 => -40.0_f32..40.0,
                    1 => Just(0.0),
                    1 => any::<f32>().prop_filter("fits", |value| value.abs() <= LIMIT),
                ],
                1..200,
            ),
        ) {
            let width = values.len();
            let vectors = Array2::from_shape_vec([1, width], values.clone()).unwrap();
            let stored = Grouped::round(&vectors, &[0]).unwrap();
            let back = stored.values(width);
            prop_assert_eq!(back.len(), width);
            for (group, (values, back)) in
                values.chunks(GROUP).zip(back.chunks(GROUP)).enumerate()
            {
                let scale = f64::from(stored.scales[group].to_f32());
                let largest = values.iter().fold(0.0_f32, |max, value| max.max(value.abs()));
                let ideal = (f64::from(largest) / 127.0).max(f64::from(f32::MIN_POSITIVE));
                prop_assert!(scale <= ideal * (1.0 + 1.0 / 64.0), "{} {}", scale, ideal);
                for (value, back) in values.iter().zip(back) {
                    let error = (f64::from(*value) - f64::from(*back)).abs();
                    prop_assert!(error <= 0.500_001 * scale, "{value} {back} {scale}");
                }
            }
        }
    }
}
