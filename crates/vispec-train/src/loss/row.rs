//! Losses of one row of logits against the teacher's distribution, with closed-form gradients.

use super::softmax::{softmax, sum_pairs, top_k};

/// Number of tokens that the ranking loss orders (paper section 3.4).
pub(super) const RANKED: usize = 10;

/// A measure of how far the student's distribution `p` is from the teacher's `t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Divergence {
    /// `-sum t log p`
    CrossEntropy,
    /// `sum |p - t|`
    L1,
}

/// The teacher's prediction at one position.
#[derive(Debug, Clone, Default)]
pub(super) struct TeacherRow {
    /// The most probable tokens, best first.
    pub(super) top: Vec<usize>,
}

impl TeacherRow {
    /// Turns the teacher's logits into probabilities in place.
    pub(super) fn new(logits: &mut [f32]) -> Self {
        softmax(logits);
        Self {
            top: top_k(logits, RANKED),
        }
    }
}

/// The losses of one row.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct RowLoss {
    /// The divergence.
    pub(super) divergence: f64,
    /// The ranking loss.
    pub(super) ranking: f64,
    /// Rank of the teacher's best token in the student's order, from 0.
    pub(super) rank: usize,
}

/// Weights of a row's terms in the loss.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RowWeights {
    pub(super) kind: Divergence,
    pub(super) divergence: f32,
    pub(super) ranking: f32,
}

/// Computes the loss of `logits` against the probabilities `teacher`, and overwrites the logits
/// with their gradient.
pub(super) fn row_loss(
    logits: &mut [f32],
    teacher: &[f32],
    row: &TeacherRow,
    weights: &RowWeights,
) -> RowLoss {
    let best = row.top.first().map_or(f32::NAN, |&token| logits[token]);
    let rank = logits.iter().filter(|&&logit| logit > best).count();
    let ranked: Vec<f32> = row.top.iter().map(|&token| logits[token]).collect();
    let expected_logit = match weights.kind {
        Divergence::CrossEntropy => sum_pairs(teacher, logits, |t, z| t * z),
        Divergence::L1 => 0.0,
    };
    let log_sum = softmax(logits);
    let scale = weights.divergence;
    let divergence = match weights.kind {
        Divergence::CrossEntropy => {
            for (p, t) in logits.iter_mut().zip(teacher) {
                *p = (*p - t) * scale;
            }
            log_sum - expected_logit
        }
        Divergence::L1 => {
            let total = sum_pairs(logits, teacher, |p, t| (p - t).abs());
            let mean_sign = sum_pairs(logits, teacher, |p, t| p * sign(p - t));
            for (p, t) in logits.iter_mut().zip(teacher) {
                *p *= (sign(*p - t) - mean_sign) * scale;
            }
            total
        }
    };
    let (ranking, slopes) = list_mle(&ranked);
    for (&token, slope) in row.top.iter().zip(slopes) {
        #[expect(clippy::cast_possible_truncation, reason = "gradients are f32")]
        let slope = slope as f32;
        logits[token] += slope * weights.ranking;
    }
    RowLoss {
        divergence: f64::from(divergence),
        ranking,
        rank,
    }
}

/// Returns -1, 0 or 1.
fn sign(x: f32) -> f32 {
    f32::from(i8::from(x > 0.0) - i8::from(x < 0.0))
}

/// Returns the ListMLE loss and its gradient: the negative log-likelihood of the teacher's order
/// under the Plackett-Luce model with the student's logits `z`.
fn list_mle(z: &[f32]) -> (f64, Vec<f64>) {
    let z: Vec<f64> = z.iter().map(|&z| f64::from(z)).collect();
    let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut log_sums = vec![0.0; z.len()];
    let mut tail = 0.0;
    for (log_sum, z) in log_sums.iter_mut().zip(&z).rev() {
        tail += (z - max).exp();
        *log_sum = tail.ln() + max;
    }
    let loss = log_sums.iter().zip(&z).map(|(l, z)| l - z).sum();
    let slopes = (0..z.len())
        .map(|j| log_sums[..=j].iter().map(|l| (z[j] - l).exp()).sum::<f64>() - 1.0)
        .collect();
    (loss, slopes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn loss(logits: &[f32], teacher: &[f32], row: &TeacherRow, weights: &RowWeights) -> f64 {
        let loss = row_loss(&mut logits.to_vec(), teacher, row, weights);
        f64::from(weights.divergence) * loss.divergence + f64::from(weights.ranking) * loss.ranking
    }

    proptest! {
        #[test]
        fn gradients_are_those_of_finite_differences(
            logits in prop::collection::vec(-2.0_f32..2.0, 14),
            teacher in prop::collection::vec(-2.0_f32..2.0, 14),
            at in 0_usize..14,
            l1 in any::<bool>(),
        ) {
            let mut teacher = teacher;
            let row = TeacherRow::new(&mut teacher);
            let kind = if l1 { Divergence::L1 } else { Divergence::CrossEntropy };
            let weights = RowWeights { kind, divergence: 2.0, ranking: 0.5 };
            let mut gradient = logits.clone();
            row_loss(&mut gradient, &teacher, &row, &weights);
            let step = 1e-2_f32;
            let moved = |by: f32| {
                let mut moved = logits.clone();
                moved[at] += by;
                moved
            };
            let above = |by: f32| {
                let mut student = moved(by);
                softmax(&mut student);
                let pairs = student.into_iter().zip(&teacher);
                pairs.map(|(p, t)| p > *t).collect::<Vec<_>>()
            };
            // The absolute value has a kink where the distributions cross.
            prop_assume!(!l1 || above(step) == above(-step));
            let loss = |by: f32| loss(&moved(by), &teacher, &row, &weights);
            let slope = (loss(step) - loss(-step)) / f64::from(2.0 * step);
            let tolerance = 2e-3;
            prop_assert!((slope - f64::from(gradient[at])).abs() < tolerance, "{slope} {gradient:?}");
        }
    }

    #[test]
    fn a_perfect_student() {
        let mut teacher = vec![3.0, 1.0, 0.0];
        let mut logits = teacher.clone();
        let row = TeacherRow::new(&mut teacher);
        let weights = RowWeights {
            kind: Divergence::L1,
            divergence: 1.0,
            ranking: 0.0,
        };
        let loss = row_loss(&mut logits, &teacher, &row, &weights);
        assert!(loss.divergence.abs() < 1e-12);
        assert_eq!(loss.rank, 0);
        assert!(logits.iter().all(|g| g.abs() < 1e-12));
    }
}
