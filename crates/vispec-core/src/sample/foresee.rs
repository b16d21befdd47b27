//! Predicts from a draft's logits which tokens a target that samples with a known number will pick.
//!
//! Sampling inverts the cumulative distribution at the number. The draft's distribution is close to
//! the target's, so the sample likely falls near the point where the draft's cumulative
//! distribution reaches the number. A token whose interval lies there has a good chance; a token
//! elsewhere has a low one, however probable it is. This is the coupling of two samples by common
//! random numbers, expressed as a distribution over tokens instead of a single token.

use super::known::{DrawLaw, KnownPick};
use super::row::BLOCK;
use super::{SCRATCH, Scratch, keep, prepare};
use crate::{LogitsError, TokenId};

/// Distance between the target's cumulative distribution and the draft's: the scale of a logistic
/// distribution, relative to `sqrt(u (1 - u))`. The distance is proportional to that root if
/// probabilities deviate at random.
const SPREAD: f64 = 0.3;
/// Share of samples assumed to be independent of the number, so that the chance of a probable token
/// never vanishes.
const ELSEWHERE: f64 = 0.3;
/// Numbers closer to 0 or 1 than this use the uncertainty at this distance.
const EDGE: f64 = 1e-3;

/// The point of the draft's cumulative distribution where the sample is expected to fall.
struct Place {
    uniform: f64,
    scale: f64,
    /// Probability mass of the logistic distribution in [0, 1].
    inside: f64,
}

impl Place {
    fn new(uniform: f64) -> Self {
        let inner = uniform.clamp(EDGE, 1.0 - EDGE);
        let mut place = Self {
            uniform,
            scale: SPREAD * (inner * (1.0 - inner)).sqrt(),
            inside: 1.0,
        };
        place.inside = place.below(1.0) - place.below(0.0);
        place
    }

    /// Chance that the sample falls below `end`.
    fn below(&self, end: f64) -> f64 {
        1.0 / (1.0 + (-(end - self.uniform) / self.scale).exp())
    }

    /// Chance of the token with the interval `start .. start + width`.
    fn chance(&self, start: f64, width: f64) -> f64 {
        let here = (self.below(start + width) - self.below(start)) / self.inside;
        (1.0 - ELSEWHERE) * here + ELSEWHERE * width
    }

    /// Upper bound of the chance of a token with this probability.
    fn most(&self, width: f64) -> f64 {
        width * ((1.0 - ELSEWHERE) / (4.0 * self.scale * self.inside) + ELSEWHERE)
    }
}

/// The best tokens so far with their chances, in descending order.
struct Best<'a> {
    k: usize,
    tokens: &'a mut Vec<(f64, TokenId)>,
    place: Place,
    total: f64,
    before: f64,
}

impl Best<'_> {
    /// Offers the next token in id order, with its weight.
    fn offer(&mut self, id: usize, weight: f64) {
        let width = weight / self.total;
        let start = self.before / self.total;
        self.before += weight;
        let is_full = self.tokens.len() == self.k;
        let enters = |chance: f64, tokens: &[(f64, TokenId)]| {
            !is_full || tokens.last().is_some_and(|&(last, _)| chance > last)
        };
        if !enters(self.place.most(width), self.tokens) {
            return;
        }
        let chance = self.place.chance(start, width);
        if !enters(chance, self.tokens) {
            return;
        }
        self.tokens.truncate(self.k - 1);
        let at = self.tokens.partition_point(|&(other, _)| other >= chance);
        let id = TokenId::try_from(id).expect("token ids fit 32 bits");
        self.tokens.insert(at, (chance, id));
    }
}

/// Writes the `k` tokens of `row` that `pick` is most likely to choose into `best`, with their
/// chances, in descending order. There are fewer if top-p or top-k leave fewer.
pub(crate) fn foresee(
    row: &[f32],
    pick: KnownPick,
    k: usize,
    best: &mut Vec<(f64, TokenId)>,
) -> Result<(), LogitsError> {
    best.clear();
    let DrawLaw {
        temperature,
        top_k,
        top_p,
    } = pick.law;
    SCRATCH.with_borrow_mut(|scratch| {
        let weights = prepare(row, temperature, scratch);
        let weights = weights.ok_or(LogitsError::NonFinite { row: 0 })?;
        let Scratch { maxima, kept, .. } = scratch;
        let mut best = Best {
            k,
            tokens: best,
            place: Place::new(pick.uniform),
            total: 0.0,
            before: 0.0,
        };
        if top_k.is_some() || top_p.is_some() {
            keep(row, weights, (top_p, top_k), maxima, kept);
            best.total = kept.iter().map(|token| f64::from(token.weight)).sum();
            for token in kept {
                best.offer(token.id as usize, f64::from(token.weight));
            }
            return Ok(());
        }
        best.total = weights.sum(row);
        for (block, values) in row.chunks(BLOCK).enumerate() {
            let mut of_block = [0.0_f32; BLOCK];
            for (weight, &value) in of_block.iter_mut().zip(values) {
                *weight = weights.of(value);
            }
            for (offset, &weight) in of_block[..values.len()].iter().enumerate() {
                best.offer(block * BLOCK + offset, f64::from(weight));
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KnownPicks, PositionUniforms, Sampler, UniformStream};

    fn foreseen(row: &[f32], pick: KnownPick, k: usize) -> Vec<(f64, TokenId)> {
        let mut best = Vec::new();
        foresee(row, pick, k, &mut best).unwrap();
        best
    }

    fn picks(sampler: Sampler) -> KnownPicks {
        KnownPicks::new(sampler, PositionUniforms::new(7)).unwrap()
    }

    fn sampler(top_p: Option<f32>) -> Sampler {
        Sampler::new(1.0, top_p, None).unwrap()
    }

    #[test]
    fn chances_are_a_distribution() {
        let mut stream = UniformStream::new(3);
        let row = Vec::from_iter((0..700).map(|_| stream.next_uniform() as f32 * 8.0));
        for position in 0..50 {
            let all = foreseen(&row, picks(sampler(None)).at(position), row.len());
            assert!(all.is_sorted_by(|a, b| a.0 >= b.0));
            let sum: f64 = all.iter().map(|&(chance, _)| chance).sum();
            assert!((sum - 1.0).abs() < 1e-6, "{sum}");
            // Skipping unlikely tokens early does not change the best ones.
            let best = foreseen(&row, picks(sampler(None)).at(position), 5);
            assert_eq!(best, all[..5]);
        }
    }

    /// The draft's distribution is the target's plus noise: the predicted token is right more often
    /// than the most probable one.
    #[test]
    fn a_known_number_tells_more_than_probabilities() {
        let mut stream = UniformStream::new(5);
        let (mut foreseen_hits, mut probable_hits) = (0, 0);
        for position in 0..2_000 {
            let target = Vec::from_iter((0..300).map(|_| stream.next_uniform() as f32 * 9.0));
            let noisy = |&logit: &f32| logit + stream.next_uniform() as f32 * 0.5;
            let draft = Vec::from_iter(target.iter().map(noisy));
            let pick = picks(sampler(None)).at(position);
            let drawn = sampler(None).pick(&target, pick.uniform).unwrap();
            foreseen_hits += usize::from(foreseen(&draft, pick, 1)[0].1 == drawn);
            probable_hits += usize::from(Sampler::Greedy.pick(&draft, 0.0).unwrap() == drawn);
        }
        assert!(
            foreseen_hits > 2 * probable_hits,
            "{foreseen_hits} and {probable_hits}"
        );
    }

    #[test]
    fn what_top_p_leaves_out_is_not_foreseen() {
        let row = [5.0, 1.0, 4.5, 0.0];
        let best = foreseen(&row, picks(sampler(Some(0.9))).at(0), 4);
        let mut tokens = Vec::from_iter(best.iter().map(|&(_, token)| token));
        tokens.sort_unstable();
        assert_eq!(tokens, [0, 2]);
    }

    #[test]
    fn broken_rows_are_refused_and_masked_tokens_are_not_likely() {
        let pick = picks(sampler(None)).at(0);
        let mut best = Vec::new();
        assert!(foresee(&[0.0, f32::NAN], pick, 1, &mut best).is_err());
        assert!(foresee(&[f32::NEG_INFINITY; 2], pick, 1, &mut best).is_err());
        let masked = foreseen(&[f32::NEG_INFINITY, 0.0], pick, 2);
        assert_eq!(masked[0].1, 1);
        assert!(masked[1].0 <= 0.0);
    }
}
