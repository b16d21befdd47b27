//! Prompt lookup with trees sized by measured cost.

use super::chances::{Guesses, LookedUp, LookupChances, Origin};
use crate::budget::{Bidder, Budget, Planned, share_nodes};
use crate::{AutoTree, Idle, NodeId, PassLoad, TokenId, TokenTree};

/// State of one generation.
#[derive(Clone, Debug)]
pub(super) struct AutoLookup {
    budget: Budget,
    chances: LookupChances,
}

impl AutoLookup {
    pub(super) fn new(limits: AutoTree) -> Self {
        Self {
            budget: Budget::new(limits.costs, limits.max_loss, 0),
            chances: LookupChances::new(),
        }
    }

    pub(super) fn begin(&mut self, prompt_tokens: usize) {
        self.budget.restart(prompt_tokens);
        self.chances = LookupChances::new();
    }

    pub(super) fn note_load(&mut self, load: PassLoad) {
        self.budget.note_load(load);
    }

    /// Learns from the last cycle.
    pub(super) fn settle(&mut self, verified: Option<&LookedUp>, accepted: &[TokenId]) {
        if let Some(verified) = verified {
            self.chances.learn(verified, accepted);
        }
        self.budget.settle(accepted.len(), 0);
    }

    /// Returns why no node of a non-empty tree is worth verifying.
    pub(super) fn idle(&self) -> Idle {
        if self.budget.affords_a_node() {
            Idle::NotWorthwhile
        } else {
            Idle::TooRisky
        }
    }

    /// Returns the part of the guesses that is worth verifying.
    pub(super) fn trimmed(&mut self, guesses: &Guesses) -> (TokenTree, Vec<Option<Origin>>) {
        let tree = &guesses.tree;
        let chances = self.chances.down_from_root(guesses);
        let mut order: Vec<usize> = (1..tree.n_nodes()).collect();
        // A parent comes before its child and is at least as likely, so a stable sort keeps it
        // first.
        order.sort_by(|&a, &b| chances[b].total_cmp(&chances[a]));
        let likely = Vec::from_iter(order.iter().map(|&node| chances[node]));
        let bidder = Bidder {
            budget: &self.budget,
            chances: &likely,
        };
        let share = share_nodes(&[bidder])[0];
        order.truncate(share.nodes);
        order.sort_unstable();
        self.budget.plan(share.extra, Planned::default());
        subtree(guesses, &order)
    }
}

/// Returns the subtree of the nodes `kept`, which are ascending; each parent is among them or the
/// root.
fn subtree(guesses: &Guesses, kept: &[usize]) -> (TokenTree, Vec<Option<Origin>>) {
    let tree = &guesses.tree;
    let mut small = TokenTree::with_capacity(tree.token(NodeId::ROOT), kept.len() + 1);
    let mut origins = Vec::with_capacity(kept.len());
    let mut moved = vec![NodeId::ROOT; tree.n_nodes()];
    for &index in kept {
        let node = NodeId::from_index(index);
        let parent = tree
            .parent(node)
            .map_or(NodeId::ROOT, |parent| moved[parent.index()]);
        if let Ok(place) = small.push(parent, tree.token(node)) {
            moved[index] = place;
            origins.push(Some(guesses.origins[index - 1]));
        }
    }
    (small, origins)
}
