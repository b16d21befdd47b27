//! Chances of continuations, by how they were found.

use crate::budget::Rates;
use crate::{NodeId, TokenId, TokenTree};

/// Classes of match lengths by their upper bounds, each with the initial chance that the token
/// after such a match is the next one. (These are not measured: they only matter in the first few
/// cycles.)
const LENGTHS: [(usize, f64); 5] = [(1, 0.2), (2, 0.4), (3, 0.55), (5, 0.7), (usize::MAX, 0.8)];
/// The same for matches in earlier answers. All prompts end alike, so a match of the same length is
/// weaker evidence there.
const STORED_LENGTHS: [(usize, f64); 5] = [
    (3, 0.3),
    (6, 0.45),
    (12, 0.6),
    (24, 0.75),
    (usize::MAX, 0.85),
];
/// Factor on the chance of a further match if a better one is already followed.
const SECOND_BEST: f64 = 0.3;
/// Upper bounds of the classes of places in a continuation: the first token, the second and third,
/// and later ones.
const PLACES: [u32; 3] = [1, 3, u32::MAX];

/// How a node of the tree was found.
#[derive(Clone, Copy, Debug)]
pub(in crate::draft) struct Origin {
    source: Source,
    length: usize,
    branch: usize,
}

/// Where a match was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Source {
    /// In the prompt or the answer.
    Own,
    /// In an earlier answer.
    Stored,
}

impl Source {
    fn lengths(self) -> [(usize, f64); 5] {
        match self {
            Self::Own => LENGTHS,
            Self::Stored => STORED_LENGTHS,
        }
    }
}

impl Origin {
    /// Origin of nodes from a match in the prompt or the answer; `branch` counts the matches that
    /// are followed.
    pub(super) fn own(length: usize, branch: usize) -> Self {
        Self::new(Source::Own, length, branch)
    }

    /// Like [`own`](Self::own), for a match in an earlier answer.
    pub(super) fn stored(length: usize, branch: usize) -> Self {
        Self::new(Source::Stored, length, branch)
    }

    fn new(source: Source, length: usize, branch: usize) -> Self {
        let lengths = source.lengths();
        Self {
            source,
            length: lengths.partition_point(|&(longest, _)| longest < length),
            branch: branch.min(1),
        }
    }

    fn class(self, depth: u32) -> usize {
        let place = PLACES.partition_point(|&last| last < depth);
        let length = self.source as usize * LENGTHS.len() + self.length;
        (length * 2 + self.branch) * PLACES.len() + place
    }

    fn guess(self, depth: u32) -> f64 {
        let (_, chance) = self.source.lengths()[self.length];
        if depth == 1 && self.branch > 0 {
            chance * SECOND_BEST
        } else {
            chance
        }
    }
}

/// Guesses as a tree.
#[derive(Clone, Debug)]
pub(in crate::draft) struct Guesses {
    pub(in crate::draft) tree: TokenTree,
    /// Origin of each node except the root, in node order.
    pub(in crate::draft) origins: Vec<Origin>,
}

/// Success rates of guesses in one generation.
#[derive(Clone, Debug)]
pub(in crate::draft) struct LookupChances {
    rates: Rates,
}

impl LookupChances {
    pub(in crate::draft) fn new() -> Self {
        Self {
            rates: Rates::new((LENGTHS.len() + STORED_LENGTHS.len()) * 2 * PLACES.len()),
        }
    }

    /// Returns the chance of each node except the root to be accepted if its parent is, in node
    /// order.
    pub(in crate::draft) fn of(&self, guesses: &Guesses) -> Vec<f64> {
        let depths = guesses.tree.depths().iter().skip(1);
        let nodes = depths.zip(&guesses.origins);
        nodes
            .map(|(&depth, origin)| self.rates.rate(origin.class(depth), origin.guess(depth)))
            .collect()
    }

    /// Returns the chance of each node to be accepted; 1 for the root.
    pub(in crate::draft) fn down_from_root(&self, guesses: &Guesses) -> Vec<f64> {
        let tree = &guesses.tree;
        let mut chances = vec![1.0; tree.n_nodes()];
        for (node, chance) in tree.nodes().skip(1).zip(self.of(guesses)) {
            let parent = tree.parent(node).map_or(0, NodeId::index);
            chances[node.index()] = chances[parent] * chance;
        }
        chances
    }

    /// Learns from the outcome of a verified tree.
    pub(in crate::draft) fn learn(&mut self, looked_up: &LookedUp, accepted: &[TokenId]) {
        for (depth, origin, hit) in looked_up.outcomes(accepted) {
            self.rates
                .observe(origin.class(depth), origin.guess(depth), hit);
        }
    }
}

/// A verified tree.
#[derive(Clone, Debug)]
pub(in crate::draft) struct LookedUp {
    tree: TokenTree,
    origins: Vec<Option<Origin>>,
}

impl LookedUp {
    /// Creates the record of a tree with the origin of each node except the root; `None` for nodes
    /// that were not looked up.
    pub(in crate::draft) fn new(tree: TokenTree, origins: Vec<Option<Origin>>) -> Self {
        Self { tree, origins }
    }

    /// Returns the number of accepted tokens that came from earlier answers.
    pub(in crate::draft) fn stored_hits(&self, accepted: &[TokenId]) -> usize {
        let stored = self.outcomes(accepted);
        let stored = stored.filter(|&(_, origin, hit)| hit && origin.source == Source::Stored);
        stored.count()
    }

    /// Returns depth, origin and acceptance of each looked-up node whose outcome is known.
    fn outcomes(&self, accepted: &[TokenId]) -> impl Iterator<Item = (u32, Origin, bool)> {
        let outcomes = self.tree.outcomes(accepted);
        outcomes.filter_map(|(node, hit)| {
            let origin = self.origins[node.index() - 1]?;
            Some((self.tree.depths()[node.index()], origin, hit))
        })
    }
}
