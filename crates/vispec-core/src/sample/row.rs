//! Passes over one row of logits, written so that the compiler vectorises them.

use std::cmp::Ordering;

/// Values per block. The first pass reduces a row to one maximum per block, so that later passes
/// read only the relevant blocks.
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
    /// Returns `None` if no token can be chosen from the row: it is empty, holds NaN or +inf, or
    /// holds only -inf.
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

    /// Returns the largest value of one block.
    pub(crate) fn of_block(&self, block: usize) -> f32 {
        self.maxima[block]
    }

    /// Returns the `k`-th largest maximum; -inf if there are fewer blocks. It is a lower bound of
    /// the `k`-th largest value of the row, since `k` blocks hold a value at least that large.
    pub(crate) fn kth_largest(&mut self, k: usize) -> f32 {
        if k == 0 || self.maxima.len() < k {
            return f32::NEG_INFINITY;
        }
        self.order.clone_from(&self.maxima);
        let descending = |a: &f32, b: &f32| b.partial_cmp(a).unwrap_or(Ordering::Equal);
        *self.order.select_nth_unstable_by(k - 1, descending).1
    }
}

/// Returns the largest value of `row`; `None` under the conditions of [`BlockMaxima::read`].
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

/// Returns the index of the largest value, the first among equals; `None` under the conditions of
/// [`BlockMaxima::read`].
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

/// Returns the largest value and the number of NaNs of one block.
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

/// Weights `exp((value - max) / temperature)` of logits, in `[0, 1]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weights {
    /// Largest logit of the row; its weight is exactly 1.
    max: f32,
    /// Factor that converts a difference of logits to an exponent of 2.
    scale: f32,
}

impl Weights {
    pub(crate) fn new(max: f32, temperature: f32) -> Self {
        Self {
            max,
            scale: std::f32::consts::LOG2_E / temperature,
        }
    }

    /// Returns the weight of one logit.
    #[inline]
    pub(crate) fn of(self, value: f32) -> f32 {
        exp2_not_positive((value - self.max) * self.scale)
    }

    /// Returns the logit with the weight `2^-halvings`.
    pub(crate) fn logit_below(self, halvings: f32) -> f32 {
        self.max - halvings / self.scale
    }

    /// Returns the sum of the weights of at most [`BLOCK`] values.
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

    /// Returns the sum of the weights of a row of any length.
    pub(crate) fn sum(self, row: &[f32]) -> f64 {
        row.chunks(BLOCK).map(|block| self.sum_block(block)).sum()
    }
}

/// Returns `2^x` for `x <= 0` with a relative error below 3e-7. It is exactly 1 at 0, and exactly 0
/// at -127 and below.
///
/// Does not use fused multiply-add, which is a library call on targets without the instruction.
#[inline]
fn exp2_not_positive(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer and leaves that integer in the low bits.
    const ROUND: f32 = 12_582_912.0;
    const LOWEST: f32 = -127.0;

    let x = if x < LOWEST { LOWEST } else { x };
    let shifted = x + ROUND;
    let fraction = x - (shifted - ROUND);
    // Polynomial for 2^fraction with a fraction in [-1/2, 1/2].
    let mut power = 1.540_353e-4;
    power = power * fraction + 1.333_355_8e-3;
    power = power * fraction + 9.618_129e-3;
    power = power * fraction + 5.550_411e-2;
    power = power * fraction + 2.402_265e-1;
    power = power * fraction + std::f32::consts::LN_2;
    power = power * fraction + 1.0;
    // Adds the integer to the exponent. At -127 all bits become zero, so the result is 0.
    f32::from_bits(power.to_bits().wrapping_add(shifted.to_bits() << 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp2_is_accurate() {
        assert_eq!(exp2_not_positive(0.0).to_bits(), 1.0_f32.to_bits());
        for zero in [-127.0, -127.5, -1e30, f32::NEG_INFINITY] {
            assert_eq!(exp2_not_positive(zero).to_bits(), 0.0_f32.to_bits());
        }
        for step in 0..127_000 {
            let x = -(step as f32) * 1e-3;
            let value = exp2_not_positive(x);
            assert!((0.0..=1.0).contains(&value), "2^{x} is {value}");
            let exact = f64::from(x).exp2();
            let error = (f64::from(value) - exact).abs() / exact;
            // Below -126 results are subnormal.
            assert!(error < 3e-7 || x < -126.0, "2^{x} is off by {error}");
        }
    }

    #[test]
    fn weights_are_exponentials() {
        let weights = Weights::new(5.0, 0.5);
        for step in 0..2_000 {
            let value = 5.0 - step as f32 * 0.005;
            let exact = (2.0 * (f64::from(value) - 5.0)).exp();
            let error = (f64::from(weights.of(value)) - exact).abs() / exact;
            assert!(error < 2e-6, "weight of {value} is off by {error}");
        }
        assert!((weights.of(weights.logit_below(3.0)) - 0.125).abs() < 1e-6);
        let row: Vec<f32> = (0..1_000).map(|at| 5.0 - at as f32 * 1e-3).collect();
        let exact: f64 = row
            .iter()
            .map(|&x| (2.0 * (f64::from(x) - 5.0)).exp())
            .sum();
        assert!((weights.sum(&row) / exact - 1.0).abs() < 1e-6);
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
