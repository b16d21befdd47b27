//! How likely a continuation is, from how it was found.

use super::context::{Guesses, Match};
use crate::budget::Rates;
use crate::{NodeId, TokenId, TokenTree};

/// Lengths of matches that count as different, each with the chance that the token after such a
/// match is the next one, before any was seen. (Measured on no data: they only have to be right
/// within the first few cycles.)
const LENGTHS: [(usize, f64); 5] = [(1, 0.2), (2, 0.4), (3, 0.55), (5, 0.7), (usize::MAX, 0.8)];
/// What an earlier place that matches counts for, when a better one was followed already.
const SECOND_BEST: f64 = 0.3;
/// Places in a continuation that count as different: its first, second and third, and later tokens.
const PLACES: [u32; 3] = [1, 3, u32::MAX];

/// How a node of the tree came about.
#[derive(Clone, Copy, Debug)]
pub(in crate::draft) struct Origin {
    length: usize,
    branch: usize,
}

impl Origin {
    /// Of nodes that a match gave, the `branch`-th of those that are followed.
    pub(super) fn new(found: &Match, branch: usize) -> Self {
        Self {
            length: LENGTHS.partition_point(|&(longest, _)| longest < found.length),
            branch: branch.min(1),
        }
    }

    fn class(self, depth: u32) -> usize {
        let place = PLACES.partition_point(|&last| last < depth);
        (self.length * 2 + self.branch) * PLACES.len() + place
    }

    fn guess(self, depth: u32) -> f64 {
        let (_, chance) = LENGTHS[self.length];
        if depth == 1 && self.branch > 0 {
            chance * SECOND_BEST
        } else {
            chance
        }
    }
}

/// How often guesses came true in one generation.
#[derive(Clone, Debug)]
pub(in crate::draft) struct LookupChances {
    rates: Rates,
}

impl LookupChances {
    pub(in crate::draft) fn new() -> Self {
        Self {
            rates: Rates::new(LENGTHS.len() * 2 * PLACES.len()),
        }
    }

    /// Chance of each node but the root to be accepted if its parent is, in node order.
    pub(in crate::draft) fn of(&self, guesses: &Guesses) -> Vec<f64> {
        let depths = guesses.tree.depths().iter().skip(1);
        let nodes = depths.zip(&guesses.origins);
        nodes
            .map(|(&depth, origin)| self.rates.rate(origin.class(depth), origin.guess(depth)))
            .collect()
    }

    /// Chance of each node to be accepted, by node; 1 for the root.
    pub(in crate::draft) fn down_from_root(&self, guesses: &Guesses) -> Vec<f64> {
        let tree = &guesses.tree;
        let mut chances = vec![1.0; tree.n_nodes()];
        for (node, chance) in tree.nodes().skip(1).zip(self.of(guesses)) {
            let parent = tree.parent(node).map_or(0, NodeId::index);
            chances[node.index()] = chances[parent] * chance;
        }
        chances
    }

    /// Learns from what became of a verified tree.
    ///
    /// # Arguments
    /// * `origins` - of the nodes but the root; `None` for those that were not looked up.
    pub(in crate::draft) fn learn(
        &mut self,
        tree: &TokenTree,
        origins: &[Option<Origin>],
        accepted: &[TokenId],
    ) {
        for (node, hit) in tree.outcomes(accepted) {
            if let Some(origin) = origins[node.index() - 1] {
                let depth = tree.depths()[node.index()];
                self.rates
                    .observe(origin.class(depth), origin.guess(depth), hit);
            }
        }
    }
}
