//! Prompt lookup by measured cost: how likely a continuation is, from how it was found.

use super::Match;
use crate::budget::{Budget, Rates};
use crate::{AutoTree, Idle, TokenId, TokenTree};

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
pub(super) struct Origin {
    length: usize,
    branch: usize,
}

/// State of one generation.
#[derive(Clone, Debug)]
pub(super) struct AutoLookup {
    pub(super) limits: AutoTree,
    budget: Budget,
    /// How often a node was accepted, given that its parent was.
    rates: Rates,
    /// The last tree, and how its nodes came about.
    tree: Option<(TokenTree, Vec<Origin>)>,
}

impl Origin {
    /// Of the root, which nothing is asked about, and of nodes found by `branch`.
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

impl AutoLookup {
    pub(super) fn new(limits: AutoTree) -> Self {
        Self {
            budget: Budget::new(limits.costs.clone(), limits.max_loss, 0),
            limits,
            rates: Rates::new(LENGTHS.len() * 2 * PLACES.len()),
            tree: None,
        }
    }

    pub(super) fn begin(&mut self, prompt_tokens: usize) {
        *self = Self::new(self.limits.clone());
        let costs = self.limits.costs.clone();
        self.budget = Budget::new(costs, self.limits.max_loss, prompt_tokens);
    }

    /// Learns from the last cycle.
    pub(super) fn settle(&mut self, accepted: &[TokenId]) {
        if let Some((tree, origins)) = self.tree.take() {
            let mut on_path = vec![false; tree.n_nodes()];
            on_path[0] = true;
            for node in tree.nodes().skip(1) {
                let depth = tree.depths()[node.index()];
                let parent = tree.parent(node).map_or(0, |parent| parent.index());
                if on_path[parent] {
                    let hit = accepted.get(depth as usize - 1) == Some(&tree.token(node));
                    on_path[node.index()] = hit;
                    let origin = origins[node.index()];
                    self.rates
                        .observe(origin.class(depth), origin.guess(depth), hit);
                }
            }
        }
        self.budget.settle(accepted.len());
    }

    /// Why nothing of a tree that was not empty is worth verifying.
    pub(super) fn idle(&self) -> Idle {
        if self.budget.affords_a_node() {
            Idle::NotWorthwhile
        } else {
            Idle::TooRisky
        }
    }

    /// The part of `tree` that is worth verifying.
    ///
    /// # Arguments
    /// * `origins` - by node; that of the root says nothing.
    pub(super) fn trimmed(&mut self, tree: &TokenTree, origins: &[Origin]) -> TokenTree {
        let mut chances = vec![1.0; tree.n_nodes()];
        for node in tree.nodes().skip(1) {
            let depth = tree.depths()[node.index()];
            let origin = origins[node.index()];
            let parent = tree.parent(node).map_or(0, |parent| parent.index());
            let rate = self.rates.rate(origin.class(depth), origin.guess(depth));
            chances[node.index()] = chances[parent] * rate;
        }
        let mut order: Vec<usize> = (1..tree.n_nodes()).collect();
        // A parent comes first and is no less likely than its child, so a stable sort keeps it
        // first.
        order.sort_by(|&a, &b| chances[b].total_cmp(&chances[a]));
        let n_draft = self
            .budget
            .worth_verifying(order.iter().map(|&node| chances[node]));
        order.truncate(n_draft);
        let expected = order.iter().map(|&node| chances[node]).sum();
        order.sort_unstable();
        let (kept, kept_origins) = subtree(tree, origins, &order);
        self.budget.plan(kept.n_nodes(), expected);
        self.tree = Some((kept.clone(), kept_origins));
        kept
    }
}

/// The nodes `kept` of `tree`, ascending, whose parents are among them or the root.
fn subtree(tree: &TokenTree, origins: &[Origin], kept: &[usize]) -> (TokenTree, Vec<Origin>) {
    let mut small = TokenTree::with_capacity(tree.token(crate::NodeId::ROOT), kept.len() + 1);
    let mut small_origins: Vec<Origin> = origins.first().copied().into_iter().collect();
    let mut moved = vec![crate::NodeId::ROOT; tree.n_nodes()];
    for &index in kept {
        let node = crate::NodeId::from_index(index);
        let parent = tree
            .parent(node)
            .map_or(crate::NodeId::ROOT, |p| moved[p.index()]);
        if let Ok(place) = small.push(parent, tree.token(node)) {
            moved[index] = place;
            small_origins.push(origins[index]);
        }
    }
    (small, small_origins)
}
