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
/// Only [`uniform`](Self::uniform) is needed; the other two exist so that a test can enumerate
/// every decision with its probability.
pub trait Chance {
    /// The next number in `[0, 1)`.
    fn uniform(&mut self) -> f64;

    /// Whether an event of `probability` happens; never if the probability is 0.
    fn happens(&mut self, probability: f64) -> bool {
        // Strict: a uniform of exactly 0 must not let a probability of 0 pass.
        self.uniform() < probability
    }

    /// An index drawn with the given `weights`, never one of weight 0; `None` if all are 0.
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

/// Upstream's rule: children are tried in turn, child `x` is taken with probability `p(x)`; after
/// a refusal `p(x)` becomes 0 and `p` is renormalised; what is left of `p` gives the next token.
///
/// Equal in law to [`MatchPicks`](crate::MatchPicks), but not tied to positions, and it reads
/// whole rows of logits.
/// Siblings are tried in ascending node order, which is the order of upstream's rows when it
/// samples (they are sorted).
#[derive(Clone, Debug)]
pub struct RecursiveRejection<C = UniformStream> {
    sampler: Sampler,
    chance: C,
    probabilities: Vec<f64>,
}

impl RecursiveRejection {
    /// The rule for `sampler` with the random stream of `seed`.
    #[must_use]
    pub fn new(sampler: Sampler, seed: u64) -> Self {
        Self::with_chance(sampler, UniformStream::new(seed))
    }
}

impl<C: Chance> RecursiveRejection<C> {
    /// The rule for `sampler` with a random source of your own.
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
        // Probabilities that sum to 1 leave a token to choose.
        let token = token.ok_or(LogitsError::NonFinite { row })?;
        Ok(TokenId::try_from(token).expect("token ids fit 32 bits"))
    }

    /// Tries the children of `node` and takes the first that passes; the probabilities of refused
    /// ones are taken away.
    fn try_children(&mut self, tree: &TokenTree, node: NodeId) -> Option<NodeId> {
        // Mass that is left; dividing by it is the renormalisation.
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
                    // Nothing else was possible; only rounding refused this child.
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
