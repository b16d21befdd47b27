//! State of a drafter with cost-sized trees: costs, and how reliable its scores are.

use super::growth::Candidate;
use crate::budget::{Budget, Planned, Rates};
use crate::{AutoTree, Idle, PassLoad, TokenId, TokenTree};

/// Lower bounds of the classes of probabilities given the parent; one more class lies below the
/// last bound.
const PROBABILITIES: [f32; 7] = [0.9, 0.7, 0.5, 0.3, 0.15, 0.07, 0.03];
/// Upper bounds of the classes of ranks among siblings; one more class lies above the last bound.
const RANKS: [usize; 3] = [0, 1, 3];
/// Initial chance of the best child, given that its parent is accepted.
const FIRST_CHILD_SHARE: f64 = 0.6;
/// Expected gain of free guesses, in tokens, from which the network rests.
const ENOUGH: f64 = 1.0;
/// Weight of the newest level in the running share of best children.
const NEWEST: f64 = 0.1;

/// State of one generation.
#[derive(Clone, Debug)]
pub(super) struct AutoGrowth {
    pub(super) limits: AutoTree,
    budget: Budget,
    /// Acceptance rates of nodes with an accepted parent, by [`class`].
    rates: Rates,
    /// Running chance of the best child, given that its parent is accepted.
    child_share: f64,
    /// The last tree and its draft nodes, to learn from their outcome.
    tree: Option<(TokenTree, Vec<Candidate>)>,
    idle: Idle,
}

/// Returns the class of a node. Nodes with the same rank among siblings and similar probabilities
/// are assumed to be equally likely to be accepted.
fn class(rank: usize, log_prob: f32) -> usize {
    let probability = log_prob.exp();
    let likely = PROBABILITIES.partition_point(|&end| end > probability);
    let rank = RANKS.partition_point(|&last| last < rank);
    likely * (RANKS.len() + 1) + rank
}

/// Returns the draft's own estimate of a node's chance.
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

    /// Starts a generation and returns whether to draft in the first cycle. Observations from other
    /// generations are dropped, so that drafts do not depend on them.
    ///
    /// # Arguments
    /// * `to_read` - number of tokens that the draft must read for a prompt of `prompt_tokens`.
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

    /// Returns whether to draft in the cycle that begins; otherwise `tokens` more remain unread.
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

    /// Returns whether the best possible draft could pay with these costs.
    pub(super) fn could_pay(&self) -> bool {
        self.budget.could_pay(self.limits.max_levels)
    }

    /// Learns from the last cycle and returns whether to draft in the next.
    ///
    /// # Arguments
    /// * `free_gain` - expected gain of free guesses in the next cycle, in tokens.
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

    /// Returns the logarithm of the chance that a node is accepted if its parent is.
    pub(super) fn log_chance(&self, rank: usize, log_prob: f32) -> f32 {
        let rate = self
            .rates
            .rate(class(rank, log_prob), f64::from(log_prob.exp()));
        rate.ln() as f32
    }

    /// Returns the chances of the candidates that may be verified, best first.
    pub(super) fn chances(&self, pool: &[Candidate], best_first: &[usize]) -> Vec<f64> {
        let most = self.limits.max_nodes.saturating_sub(1);
        let best = best_first.iter().take(most);
        best.map(|&index| pool[index].chance()).collect()
    }

    /// Returns how many of the best candidates to verify if no other sequence has candidates.
    pub(super) fn worth_verifying(&self, pool: &[Candidate], best_first: &[usize]) -> usize {
        self.budget.worth_verifying(&self.chances(pool, best_first))
    }

    /// Returns how many of the best candidates of a level to expand if `n_draft` of all candidates
    /// are worth verifying.
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

    /// Accounts for an expansion of a beam of `rows` to `children`.
    pub(super) fn expanded(&mut self, children: &[Candidate], rows: usize) {
        self.budget.pay_expand(rows);
        for best in children.iter().filter(|child| child.rank == Some(0)) {
            let share = f64::from(self.log_chance(0, best.log_prob)).exp();
            self.child_share += NEWEST * (share - self.child_share);
        }
    }

    /// Records the tree that goes to the target. Its draft nodes are `nodes` of the pool and add
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
