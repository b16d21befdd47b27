//! Passes over one row of logits, written so that the compiler vectorises them.

use std::cmp::Ordering;

/// Values per block: a row is first reduced to one maximum per block, and later passes look only
/// into the blocks that matter.
pub(crate) const BLOCK: usize = 256;

/// Independent accumulators, enough to hide the latency of the vector unit.
const LANES: usize = 16;

/// Largest value of each block of a row.
#[derive(Default, Debug)]
pub(crate) struct BlockMaxima {
    maxima: Vec<f32>,
    order: Vec<f32>,
}

impl BlockMaxima {
    /// Reads `row` and returns its largest value.
    ///
    /// `None` if the row cannot be chosen from: empty, NaN or +inf somewhere, or nothing but -inf.
    pub(crate) fn read(&mut self, row: &[f32]) -> Option<f32> {
        self.maxima.clear();
        let mut largest = f32::NEG_INFINITY;
        let mut n_nan = 0;
        for block in row.chunks(BLOCK) {
            let (block_max, block_nan) = scan_block(block);
            self.maxima.push(block_max);
            largest = if block_max > largest {
                block_max
            } else {
                largest
            };
            n_nan += block_nan;
        }
        (n_nan == 0 && largest.is_finite()).then_some(largest)
    }

    /// Largest value of one block.
    pub(crate) fn of_block(&self, block: usize) -> f32 {
        self.maxima[block]
    }

    /// The `k`-th largest maximum, a lower bound of the `k`-th largest value of the row: `k` blocks
    /// hold a value that large. -inf if there are fewer blocks.
    pub(crate) fn kth_largest(&mut self, k: usize) -> f32 {
        if k == 0 || self.maxima.len() < k {
            return f32::NEG_INFINITY;
        }
        self.order.clone_from(&self.maxima);
        let descending = |a: &f32, b: &f32| b.partial_cmp(a).unwrap_or(Ordering::Equal);
        *self.order.select_nth_unstable_by(k - 1, descending).1
    }
}

/// Largest value of `row`; `None` as in [`BlockMaxima::read`].
pub(crate) fn row_max(row: &[f32]) -> Option<f32> {
    let mut largest = f32::NEG_INFINITY;
    let mut n_nan = 0;
    for block in row.chunks(BLOCK) {
        let (block_max, block_nan) = scan_block(block);
        largest = if block_max > largest {
            block_max
        } else {
            largest
        };
        n_nan += block_nan;
    }
    (n_nan == 0 && largest.is_finite()).then_some(largest)
}

/// Index of the largest value, the first of equals; `None` as in [`BlockMaxima::read`].
pub(crate) fn argmax(row: &[f32]) -> Option<usize> {
    let mut largest = f32::NEG_INFINITY;
    let mut best_block = 0;
    let mut n_nan = 0;
    for (block_idx, block) in row.chunks(BLOCK).enumerate() {
        let (block_max, block_nan) = scan_block(block);
        n_nan += block_nan;
        if block_max > largest {
            largest = block_max;
            best_block = block_idx;
        }
    }
    if n_nan > 0 || !largest.is_finite() {
        return None;
    }
    let start = best_block * BLOCK;
    let offset = row[start..].iter().position(|&value| value >= largest)?;
    Some(start + offset)
}

/// Largest value and number of NaNs of one block.
fn scan_block(block: &[f32]) -> (f32, u32) {
    let mut maxima = [f32::NEG_INFINITY; LANES];
    let mut nans = [0_u32; LANES];
    let (chunks, rest) = block.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            let value = chunk[lane];
            maxima[lane] = if value > maxima[lane] {
                value
            } else {
                maxima[lane]
            };
            nans[lane] += u32::from(value.is_nan());
        }
    }
    for (lane, &value) in rest.iter().enumerate() {
        maxima[lane] = if value > maxima[lane] {
            value
        } else {
            maxima[lane]
        };
        nans[lane] += u32::from(value.is_nan());
    }
    let largest = maxima
        .iter()
        .fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
    (largest, nans.iter().sum())
}

/// Weights `exp((value - max) * scale)` of one block of logits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights {
    /// Largest logit of the row; its weight is exactly 1.
    pub(crate) max: f32,
    /// One over the temperature.
    pub(crate) scale: f32,
}

impl Weights {
    /// Weight of one logit, in `[0, 1]`.
    #[inline]
    pub(crate) fn of(self, value: f32) -> f32 {
        exp_not_positive((value - self.max) * self.scale)
    }

    /// Sum over at most [`BLOCK`] values.
    pub(crate) fn sum_block(self, block: &[f32]) -> f64 {
        let mut sums = [0.0_f32; LANES];
        let (chunks, rest) = block.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                sums[lane] += self.of(chunk[lane]);
            }
        }
        for (lane, &value) in rest.iter().enumerate() {
            sums[lane] += self.of(value);
        }
        sums.iter().map(|&sum| f64::from(sum)).sum()
    }

    /// Sum over a row of any length.
    pub(crate) fn sum(self, row: &[f32]) -> f64 {
        row.chunks(BLOCK).map(|block| self.sum_block(block)).sum()
    }
}

/// `exp(x)` for `x <= 0` with a relative error below 2e-7; exactly 1 at 0 and exactly 0 below -87.
///
/// The polynomial is that of Cephes' `expf`. No fused multiply-add: it is a library call on
/// targets without the instruction.
#[inline]
fn exp_not_positive(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts, so that n * LN_2_HIGH is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LOWEST: f32 = -87.0;

    let clamped = if x < LOWEST { LOWEST } else { x };
    let shifted = clamped * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * LN_2_HIGH - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_199_9e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    let mantissa = p * r * r + r + 1.0;
    let exponent = shifted
        .to_bits()
        .wrapping_sub(ROUND.to_bits())
        .wrapping_add(127)
        << 23;
    let value = mantissa * f32::from_bits(exponent);
    if x < LOWEST { 0.0 } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate() {
        assert_eq!(exp_not_positive(0.0).to_bits(), 1.0_f32.to_bits());
        assert_eq!(
            exp_not_positive(f32::NEG_INFINITY).to_bits(),
            0.0_f32.to_bits()
        );
        assert_eq!(exp_not_positive(-87.1).to_bits(), 0.0_f32.to_bits());
        assert!(exp_not_positive(f32::NAN).is_nan());
        for step in 0..87_000 {
            let x = -(step as f32) * 1e-3;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp_not_positive(x)) - exact).abs() / exact;
            assert!(error < 2e-7, "exp({x}) is off by {error}");
        }
    }

    #[test]
    fn argmax_takes_the_first_of_equals_across_blocks() {
        let mut row = vec![0.0_f32; 1000];
        row[700] = 2.0;
        row[300] = 2.0;
        row[999] = 2.0;
        assert_eq!(argmax(&row), Some(300));
        row[300] = f32::NEG_INFINITY;
        assert_eq!(argmax(&row), Some(700));
        row[998] = f32::NAN;
        assert_eq!(argmax(&row), None);
        assert_eq!(row_max(&row), None);
        assert_eq!(BlockMaxima::default().read(&row), None);
        assert_eq!(argmax(&[]), None);
        assert_eq!(argmax(&[f32::NEG_INFINITY; 3]), None);
        assert_eq!(argmax(&[0.0, f32::INFINITY]), None);
    }
}
