//! What a drafter with trees of no fixed size knows: costs, and how far scores can be trusted.

use super::growth::Candidate;
use crate::budget::{Budget, Planned, Rates};
use crate::{AutoTree, Idle, PassLoad, TokenId, TokenTree};

/// Lower ends of the classes of probabilities after the parent; one more class lies below the last.
const PROBABILITIES: [f32; 7] = [0.9, 0.7, 0.5, 0.3, 0.15, 0.07, 0.03];
/// Last ranks among siblings of the classes of ranks; one more class lies behind the last.
const RANKS: [usize; 3] = [0, 1, 3];
/// Chance of the best child given that its parent is accepted, before any was seen.
const FIRST_CHILD_SHARE: f64 = 0.6;
/// Tokens that free guesses must be expected to gain for the network to rest.
const ENOUGH: f64 = 1.0;
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
    /// The last tree and its draft nodes, to learn from what becomes of them.
    tree: Option<(TokenTree, Vec<Candidate>)>,
    idle: Idle,
}

/// Nodes of the same rank among siblings and of like probability are equally likely to be accepted.
fn class(rank: usize, log_prob: f32) -> usize {
    let probability = log_prob.exp();
    let likely = PROBABILITIES.partition_point(|&end| end > probability);
    let rank = RANKS.partition_point(|&last| last < rank);
    likely * (RANKS.len() + 1) + rank
}

/// The draft's own opinion of how often a node is accepted.
fn guess(log_prob: f32) -> f64 {
    f64::from(log_prob).exp()
}

impl AutoGrowth {
    pub(super) fn new(limits: AutoTree) -> Self {
        Self {
            budget: Budget::new(limits.costs.clone(), limits.max_loss, 0),
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

    pub(super) fn note_load(&mut self, load: PassLoad) {
        self.budget.note_load(load);
    }

    pub(super) fn budget(&self) -> &Budget {
        &self.budget
    }

    /// Starts a generation. What was learned from another one is dropped, so that what is drafted
    /// does not depend on it. Tells whether to draft in the first cycle.
    ///
    /// # Arguments
    /// * `to_read` - tokens that the draft has to read of a prompt of `prompt_tokens`.
    pub(super) fn begin(&mut self, prompt_tokens: usize, to_read: usize) -> bool {
        let mut budget = self.budget.clone();
        budget.restart(prompt_tokens);
        *self = Self {
            budget,
            ..Self::new(self.limits.clone())
        };
        self.budget.leave_unread(to_read);
        self.prepare(0)
    }

    /// Tells whether to draft in the cycle that begins, in which the draft could read `tokens` more.
    fn prepare(&mut self, tokens: usize) -> bool {
        match self.budget.may_draft(self.limits.max_levels) {
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

    /// Learns from the last cycle; says whether to draft in the next.
    ///
    /// # Arguments
    /// * `free_gain` - tokens that guesses which cost nothing are expected to gain in it.
    pub(super) fn advance(&mut self, accepted: &[TokenId], free_gain: f64) -> bool {
        let mut by_network = 0;
        if let Some((tree, nodes)) = self.tree.take() {
            for (node, hit) in tree.outcomes(accepted) {
                let Candidate {
                    rank,
                    origin,
                    log_prob,
                    ..
                } = nodes[node.index() - 1];
                by_network += usize::from(hit && origin.is_none());
                if let Some(rank) = rank {
                    self.rates
                        .observe(class(rank, log_prob), guess(log_prob), hit);
                }
            }
        }
        self.budget.settle(accepted.len(), by_network);
        if free_gain >= ENOUGH && free_gain > self.budget.profit() {
            self.budget.leave_unread(accepted.len() + 1);
            self.idle = Idle::NotWorthwhile;
            return false;
        }
        self.prepare(accepted.len() + 1)
    }

    /// Logarithm of the chance that a node is accepted if its parent is.
    pub(super) fn log_chance(&self, rank: usize, log_prob: f32) -> f32 {
        let rate = self
            .rates
            .rate(class(rank, log_prob), f64::from(log_prob.exp()));
        rate.ln() as f32
    }

    /// Chances of the candidates that may be verified, best first.
    pub(super) fn chances(&self, pool: &[Candidate], best_first: &[usize]) -> Vec<f64> {
        let most = self.limits.max_nodes.saturating_sub(1);
        let best = best_first.iter().take(most);
        best.map(|&index| pool[index].chance()).collect()
    }

    /// How many of the best candidates to verify, if no other sequence has any.
    pub(super) fn worth_verifying(&self, pool: &[Candidate], best_first: &[usize]) -> usize {
        self.budget.worth_verifying(&self.chances(pool, best_first))
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
        for best in children.iter().filter(|child| child.rank == Some(0)) {
            let share = f64::from(self.log_chance(0, best.log_prob)).exp();
            self.child_share += NEWEST * (share - self.child_share);
        }
    }

    /// Notes the tree that goes to the target, whose draft nodes are `nodes` of the pool and add
    /// `extra` seconds to the pass.
    pub(super) fn plan(
        &mut self,
        tree: &TokenTree,
        extra: f64,
        pool: &[Candidate],
        nodes: &[usize],
    ) {
        let nodes = Vec::from_iter(nodes.iter().map(|&index| pool[index]));
        let by_network = nodes.iter().filter(|node| node.origin.is_none());
        let share = by_network.clone().count() as f64 / nodes.len().max(1) as f64;
        let planned = Planned {
            extra: extra * share,
            expected: by_network.map(Candidate::chance).sum(),
        };
        self.budget.plan(extra, planned);
        self.tree = Some((tree.clone(), nodes));
    }
}
