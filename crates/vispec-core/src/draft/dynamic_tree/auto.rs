//! What a drafter with trees of no fixed size knows: costs, and how far scores can be trusted.

use super::Candidate;
use crate::budget::{Budget, Rates};
use crate::{AutoTree, Idle, TokenId, TokenTree};

/// Lower ends of the classes of probabilities after the parent; one more class lies below the last.
const PROBABILITIES: [f32; 7] = [0.9, 0.7, 0.5, 0.3, 0.15, 0.07, 0.03];
/// Last ranks among siblings of the classes of ranks; one more class lies behind the last.
const RANKS: [usize; 3] = [0, 1, 3];
/// Chance of the best child given that its parent is accepted, before any was seen.
const FIRST_CHILD_SHARE: f64 = 0.6;
/// Share of the newest level in the running share of best children.
const NEWEST: f64 = 0.1;

/// State of one generation.
#[derive(Clone, Debug)]
pub(super) struct AutoGrowth {
    pub(super) limits: AutoTree,
    budget: Budget,
    /// How often a node was accepted, given that its parent was, by [`class`].
    rates: Rates,
    /// Running chance of a best child, given that its parent is accepted.
    child_share: f64,
    /// The last tree and the ranks of its draft nodes, to learn from what becomes of them.
    tree: Option<(TokenTree, Vec<usize>)>,
    idle: Idle,
}

/// Nodes of the same rank among siblings and of like probability are equally likely to be accepted.
fn class(rank: usize, log_prob: f32) -> usize {
    let probability = log_prob.exp();
    let likely = PROBABILITIES.partition_point(|&end| end > probability);
    let rank = RANKS.partition_point(|&last| last < rank);
    likely * (RANKS.len() + 1) + rank
}

fn budget_of(limits: &AutoTree, prompt_tokens: usize) -> Budget {
    Budget::new(limits.costs.clone(), limits.max_loss, prompt_tokens)
}

/// The draft's own opinion of how often a node is accepted.
fn guess(log_prob: f32) -> f64 {
    f64::from(log_prob).exp()
}

impl AutoGrowth {
    pub(super) fn new(limits: AutoTree) -> Self {
        Self {
            budget: budget_of(&limits, 0),
            limits,
            rates: Rates::new((PROBABILITIES.len() + 1) * (RANKS.len() + 1)),
            child_share: FIRST_CHILD_SHARE,
            tree: None,
            idle: Idle::NotWorthwhile,
        }
    }

    pub(super) fn idle(&self) -> Idle {
        self.idle
    }

    /// Starts a generation. What was learned from another one is dropped, so that what is drafted
    /// does not depend on it. Tells whether to draft in the first cycle.
    ///
    /// # Arguments
    /// * `to_read` - tokens that the draft has to read of a prompt of `prompt_tokens`.
    pub(super) fn begin(&mut self, prompt_tokens: usize, to_read: usize) -> bool {
        *self = Self::new(self.limits.clone());
        self.budget = budget_of(&self.limits, prompt_tokens);
        self.budget.leave_unread(to_read);
        self.prepare(0)
    }

    /// Tells whether to draft in the cycle that begins, in which the draft could read `tokens` more.
    fn prepare(&mut self, tokens: usize) -> bool {
        match self.budget.may_draft() {
            Ok(()) => {
                self.budget.pay_commit();
                self.idle = Idle::NotWorthwhile;
                true
            }
            Err(reason) => {
                self.budget.leave_unread(tokens);
                self.idle = reason;
                false
            }
        }
    }

    /// Whether the fastest draft could pay with these costs.
    pub(super) fn could_pay(&self) -> bool {
        self.budget.could_pay(self.limits.max_levels)
    }

    /// Learns from the last cycle; tells whether to draft in the next.
    pub(super) fn advance(&mut self, accepted: &[TokenId]) -> bool {
        if let Some((tree, ranks)) = self.tree.take() {
            self.learn(&tree, &ranks, accepted);
        }
        self.budget.settle(accepted.len());
        self.prepare(accepted.len() + 1)
    }

    fn learn(&mut self, tree: &TokenTree, ranks: &[usize], accepted: &[TokenId]) {
        let mut on_path = vec![false; tree.n_nodes()];
        on_path[0] = true;
        for (node, &rank) in tree.nodes().skip(1).zip(ranks) {
            let depth = tree.depths()[node.index()] as usize;
            let parent = tree.parent(node).map_or(0, |parent| parent.index());
            if on_path[parent] {
                let hit = accepted.get(depth - 1) == Some(&tree.token(node));
                on_path[node.index()] = hit;
                let log_prob = tree.log_prob(node).unwrap_or(f32::NEG_INFINITY);
                self.rates
                    .observe(class(rank, log_prob), guess(log_prob), hit);
            }
        }
    }

    /// Logarithm of the chance that a node is accepted if its parent is.
    pub(super) fn log_chance(&self, rank: usize, log_prob: f32) -> f32 {
        let rate = self
            .rates
            .rate(class(rank, log_prob), f64::from(log_prob.exp()));
        rate.ln() as f32
    }

    /// How many of the best candidates to verify.
    pub(super) fn worth_verifying(&self, pool: &[Candidate], best_first: &[usize]) -> usize {
        let most = self.limits.max_nodes.saturating_sub(1);
        let best = best_first.iter().take(most);
        self.budget
            .worth_verifying(best.map(|&index| pool[index].chance()))
    }

    /// How many of the best candidates of a level to expand, if `n_draft` of all are worth
    /// verifying.
    pub(super) fn worth_expanding(
        &self,
        n_draft: usize,
        pool: &[Candidate],
        best_first: &[usize],
    ) -> usize {
        let chances = best_first
            .iter()
            .map(|&index| pool[index].chance() * self.child_share);
        self.budget.worth_expanding(n_draft, chances)
    }

    /// Accounts for an expansion to `children` of a beam of `rows`.
    pub(super) fn expanded(&mut self, children: &[Candidate], rows: usize) {
        self.budget.pay_expand(rows);
        for best in children.iter().filter(|child| child.rank == 0) {
            let share = f64::from(self.log_chance(0, best.log_prob)).exp();
            self.child_share += NEWEST * (share - self.child_share);
        }
    }

    /// Notes the tree that goes to the target, whose draft nodes are `nodes` of the pool.
    pub(super) fn plan(&mut self, tree: &TokenTree, pool: &[Candidate], nodes: &[usize]) {
        let nodes = nodes.iter().map(|&index| &pool[index]);
        let expected = nodes.clone().map(Candidate::chance).sum();
        self.budget.plan(tree.n_nodes(), expected);
        let ranks = nodes.map(|node| node.rank).collect();
        self.tree = Some((tree.clone(), ranks));
    }
}
