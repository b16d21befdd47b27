//! Recursive rejection: upstream's rule for deterministic proposals, for parity runs.
//!
//! Follows `evaluate_posterior` of `vispec/model/utils.py`, commit d0240c8, in f64.

use crate::sample::choose_weighted;
use crate::{
    AcceptanceRule, LogitsError, NodeId, Sampler, TargetLogits, TokenId, TokenTree, UniformStream,
    Verdict,
};

/// Source of the random decisions of [`RecursiveRejection`].
///
/// Only [`uniform`](Self::uniform) is required; the other two methods exist so that a test can
/// enumerate every decision with its probability.
pub trait Chance {
    /// Returns the next number in `[0, 1)`.
    fn uniform(&mut self) -> f64;

    /// Returns `true` with the given `probability`; never if it is 0.
    fn happens(&mut self, probability: f64) -> bool {
        // Strict comparison: an event of probability 0 must not happen for a uniform of exactly 0.
        self.uniform() < probability
    }

    /// Samples an index with the given `weights`, never one of weight 0; `None` if all are 0.
    fn choose(&mut self, weights: &[f64]) -> Option<usize> {
        let uniform = self.uniform();
        choose_weighted(weights, uniform)
    }
}

impl Chance for UniformStream {
    fn uniform(&mut self) -> f64 {
        self.next_uniform()
    }
}

impl<C: Chance + ?Sized> Chance for &mut C {
    fn uniform(&mut self) -> f64 {
        (**self).uniform()
    }

    fn happens(&mut self, probability: f64) -> bool {
        (**self).happens(probability)
    }

    fn choose(&mut self, weights: &[f64]) -> Option<usize> {
        (**self).choose(weights)
    }
}

/// Upstream's rule: children are tried in turn, and child `x` is accepted with probability `p(x)`.
/// After a rejection `p(x)` becomes 0 and `p` is renormalised. If all children are rejected, the
/// next token is sampled from the remaining `p`.
///
/// Has the same distribution as [`MatchPicks`](crate::MatchPicks), but its random numbers are not
/// tied to positions, and it reads whole rows of logits. Siblings are tried in ascending node
/// order, the order of upstream's rows when it samples (they are sorted).
#[derive(Clone, Debug)]
pub struct RecursiveRejection<C = UniformStream> {
    sampler: Sampler,
    chance: C,
    probabilities: Vec<f64>,
}

impl RecursiveRejection {
    /// Creates the rule for `sampler` with the random stream of `seed`.
    #[must_use]
    pub fn new(sampler: Sampler, seed: u64) -> Self {
        Self::with_chance(sampler, UniformStream::new(seed))
    }
}

impl<C: Chance> RecursiveRejection<C> {
    /// Creates the rule for `sampler` with a custom random source.
    pub fn with_chance(sampler: Sampler, chance: C) -> Self {
        Self {
            sampler,
            chance,
            probabilities: Vec::new(),
        }
    }

    fn read(&mut self, logits: &mut dyn TargetLogits, row: usize) -> Result<(), LogitsError> {
        let values = logits.read_row(row)?;
        self.sampler
            .probabilities_into(values, &mut self.probabilities)
            .map_err(|error| error.at_row(row))
    }

    fn draw(&mut self, row: usize) -> Result<TokenId, LogitsError> {
        let token = self.chance.choose(&self.probabilities);
        // The probabilities sum to 1, so a token can be chosen.
        let token = token.ok_or(LogitsError::NonFinite { row })?;
        Ok(TokenId::try_from(token).expect("token ids fit 32 bits"))
    }

    /// Tries the children of `node` and returns the first one accepted; the probabilities of
    /// rejected children are set to 0.
    fn try_children(&mut self, tree: &TokenTree, node: NodeId) -> Option<NodeId> {
        // Remaining mass; dividing by it renormalises.
        let mut mass = 1.0;
        for child in tree.children(node) {
            let token = tree.token(child) as usize;
            let probability = self.probabilities.get(token).copied().unwrap_or(0.0);
            if self.chance.happens((probability / mass).min(1.0)) {
                return Some(child);
            }
            if probability > 0.0 {
                self.probabilities[token] = 0.0;
                mass = self.probabilities.iter().sum();
                if mass <= 0.0 {
                    // No other token was possible; only rounding rejected this child.
                    return Some(child);
                }
            }
        }
        None
    }
}

impl<C: Chance> AcceptanceRule for RecursiveRejection<C> {
    fn first(
        &mut self,
        logits: &mut dyn TargetLogits,
        _position: usize,
    ) -> Result<TokenId, LogitsError> {
        self.read(logits, 0)?;
        self.draw(0)
    }

    fn accept(
        &mut self,
        tree: &TokenTree,
        logits: &mut dyn TargetLogits,
        _position: usize,
    ) -> Result<Verdict, LogitsError> {
        let mut path = vec![NodeId::ROOT];
        let mut node = NodeId::ROOT;
        loop {
            self.read(logits, node.index())?;
            match self.try_children(tree, node) {
                Some(child) => {
                    path.push(child);
                    node = child;
                }
                None => {
                    let bonus = self.draw(node.index())?;
                    return Ok(Verdict { path, bonus });
                }
            }
        }
    }
}
