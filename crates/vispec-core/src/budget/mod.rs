//! Trees sized by measured cost: which guesses are worth their share of a verify pass.
//!
//! A tree of many nodes is worth verifying where a pass over them costs hardly more than one over
//! the root, as on a GPU; on a CPU each node beyond the first few costs. So the size has to follow
//! from measured times ([`CostTable`]) and from how likely guesses come true.
//!
//! A cycle that is expected to emit `1 + Σ q` tokens in `t` seconds is compared with the pace of
//! the run so far: something is worth doing if it yields more tokens than the run would have
//! emitted in the time that it takes. (This is the greedy rule of renewal-reward processes; its
//! fixed point has the greatest pace.) Time is that of the table, never that of the clock, so what
//! is drafted is a function of table, model and prompt alone.
//!
//! What is likely to pay may still fail, and the first guesses of a run are made knowing nothing. So
//! drafting starts from an allowance: a small share ([`AutoTree::max_loss`]) of the time that plain
//! decoding would have taken so far, the share of the first [`AutoTree::ADVANCE`] tokens in advance.
//! Guesses that come true add to it what they saved, guesses that fail take from it what they cost,
//! and nothing is drafted that could overdraw it: by the table's times no answer of so many tokens
//! ever takes longer than plain decoding by more than that share. A prompt counts as
//! [`LONGEST_PREFILL`] at most, so that what a long one earns does not show in a short answer.
//!
//! Where a pass carries several sequences ([`PassLoad`]), a node costs what it adds to a pass that
//! has the others' rows already (twice that while somebody waits for a first token), and a token is
//! worth its share of a pass over all roots. So trees shrink as the pass fills, down to their roots.
//! Whether to draft at all is decided as if all sequences did; then the candidates of those that do
//! compete in one list ([`share_nodes`]).

mod costs;
mod gain;
mod load;
mod measure;
mod rates;
mod share;
mod watch;

use std::sync::Arc;

use crate::Idle;

pub use costs::{ContextCost, Cost, CostError, CostTable, DraftCosts, TargetCosts};
pub use gain::{SpeculationSummary, plain_time};
pub use load::PassLoad;
pub use measure::{measure_draft_costs, measure_target_costs};
pub(crate) use rates::Rates;
pub(crate) use share::{Bidder, Share, share_nodes};
pub use watch::{CostDrift, CostWatch, TimedPass, WatchedPasses};

/// What one cycle counts for after the next one.
const FORGETTING: f64 = 0.97;
/// Cycles of plain decoding that the pace starts from.
const HEAD_START: f64 = 4.0;
/// Cycles that a first pause lasts; each further one is twice as long.
const FIRST_PAUSE: u32 = 4;
/// Cycles that a pause lasts at most.
const LONGEST_PAUSE: u32 = 64;
/// Share of the newest cycle in the running profit.
const PROFIT_SHARE: f64 = 0.2;
/// Passes over a root that a prefill counts as at most, when it earns the right to try.
const LONGEST_PREFILL: f64 = 32.0;

/// Factor on the price of time while prompts are read.
const HURRY: f64 = 2.0;

/// Chance of each token of a chain, if a draft is as good as drafts get.
const BEST_CHANCE: f64 = 0.9;

/// Upper bounds of trees whose size is chosen in each cycle.
#[derive(Clone, PartialEq, Debug)]
pub struct AutoTree {
    /// Measured times.
    pub costs: Arc<CostTable>,
    /// Levels below the root at most.
    pub max_levels: usize,
    /// Nodes expanded per level at most, and children considered per node.
    pub beam_width: usize,
    /// Nodes verified at most, the root included.
    pub max_nodes: usize,
    /// Most that drafting may lose, as a share of the time of plain decoding, prefill included. A
    /// shorter answer than [`ADVANCE`](Self::ADVANCE) counts as that long.
    pub max_loss: f64,
}

impl AutoTree {
    /// Most that drafting may lose unless the caller says otherwise. What others gain and lose is
    /// compared in `tests/replay` and in `docs/speed.md`.
    pub const DEFAULT_MAX_LOSS: f64 = 0.05;
    /// Tokens whose share may be lost before they are there, so that the first cycles draft: most
    /// answers are longer.
    pub const ADVANCE: usize = 32;

    /// Wide enough bounds for any machine that profits from a choice: 8 levels, a beam of 8, 64
    /// nodes, a loss of 5 %.
    #[must_use]
    pub fn new(costs: Arc<CostTable>) -> Self {
        Self {
            costs,
            max_levels: 8,
            beam_width: 8,
            max_nodes: 64,
            max_loss: Self::DEFAULT_MAX_LOSS,
        }
    }
}

/// The running accounts of one generation.
#[derive(Clone, Debug)]
pub(crate) struct Budget {
    costs: Arc<CostTable>,
    tokens: f64,
    seconds: f64,
    /// Running profit of drafting, in tokens per cycle.
    profit: f64,
    pause: u32,
    next_pause: u32,
    max_loss: f64,
    /// Seconds that may be lost; see the head of this module.
    allowance: f64,
    /// Tokens that have added their share to the allowance and are not there yet.
    advance: f64,
    /// Tokens that the draft has not read.
    unread: usize,
    /// Of the cycle under way.
    drafted_for: f64,
    read_for: f64,
    /// Seconds that the tree's nodes below the root add to the pass.
    extra: f64,
    planned: Planned,
    load: PassLoad,
}

/// What only the network proposed of a tree.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Planned {
    /// Seconds that these nodes add to the pass.
    pub(crate) extra: f64,
    /// How many of them are expected to be accepted.
    pub(crate) expected: f64,
}

impl Budget {
    /// Accounts of a generation behind a prompt of so many tokens. The draft need not read them
    /// unless [`leave_unread`](Self::leave_unread) says so.
    pub(crate) fn new(costs: Arc<CostTable>, max_loss: f64, prompt_tokens: usize) -> Self {
        let pass = costs.verify(1);
        let advance = AutoTree::ADVANCE as f64;
        let seconds = HEAD_START * pass;
        let prefill = costs.prefill(prompt_tokens);
        Self {
            max_loss,
            allowance: max_loss * (prefill.min(LONGEST_PREFILL * pass) + advance * pass),
            advance,
            unread: 0,
            costs,
            tokens: HEAD_START,
            seconds,
            profit: 0.0,
            pause: 0,
            next_pause: FIRST_PAUSE,
            drafted_for: 0.0,
            read_for: 0.0,
            extra: 0.0,
            planned: Planned::default(),
            load: PassLoad::ALONE,
        }
    }

    /// Starts the accounts of another generation, in a pass that carries as much besides.
    pub(crate) fn restart(&mut self, prompt_tokens: usize) {
        let load = self.load;
        *self = Self::new(Arc::clone(&self.costs), self.max_loss, prompt_tokens);
        self.load = load;
    }

    /// What the next pass carries besides this sequence.
    pub(crate) fn note_load(&mut self, load: PassLoad) {
        self.load = load;
    }

    /// What [`note_load`](Self::note_load) said last.
    pub(crate) fn load(&self) -> PassLoad {
        self.load
    }

    /// Whether any draft could pay for a sequence alone, however good: one that costs as much as
    /// what it saves is not even given the prompt to read.
    pub(crate) fn could_pay(&self, max_levels: usize) -> bool {
        self.pays_at_best(PassLoad::ALONE, max_levels)
    }

    fn pays_at_best(&self, load: PassLoad, max_levels: usize) -> bool {
        let token = self.seconds_per_token(load);
        let (mut gained, mut chance) = (0.0, 1.0);
        let mut drafted_for = self.commit_time(load);
        (1..=max_levels).any(|levels| {
            chance *= BEST_CHANCE;
            gained += chance * token;
            let time = drafted_for + self.node_time(load, 0, levels);
            drafted_for += self.expand_time(load, 1);
            gained > time
        })
    }

    /// Seconds of this sequence's part of the draft's first level, if all sequences draft.
    fn commit_time(&self, load: PassLoad) -> f64 {
        let sequences = load.sequences.max(1);
        let others = self.costs.expand(sequences) - self.costs.expand(1);
        (self.costs.commit() + others) / sequences as f64
    }

    /// Seconds of this sequence's part of another level, if all sequences expand so many rows.
    fn expand_time(&self, load: PassLoad, rows: usize) -> f64 {
        let sequences = load.sequences.max(1);
        self.costs.expand(rows * sequences) / sequences as f64
    }

    /// This sequence's part of the seconds that `more` nodes of each sequence take besides its root
    /// and `n_draft`: the others are likely to draft as much.
    fn node_time(&self, load: PassLoad, n_draft: usize, more: usize) -> f64 {
        let sequences = load.sequences.max(1);
        let rows = load.rows + 1 + n_draft * sequences;
        let extra = self.costs.verify(rows + more * sequences) - self.costs.verify(rows);
        extra / sequences as f64
    }

    /// A sequence's share of a pass over the roots of all, which is what a token takes without
    /// drafts.
    fn seconds_per_token(&self, load: PassLoad) -> f64 {
        let sequences = load.sequences.max(1);
        self.costs.verify(sequences) / sequences as f64
    }

    /// Seconds of one token of plain decoding.
    fn plain(&self) -> f64 {
        self.seconds_per_token(self.load)
    }

    /// Tokens per second of the run so far, at least that of plain decoding.
    pub(crate) fn pace(&self) -> f64 {
        (self.tokens / self.seconds).max(1.0 / self.plain())
    }

    /// Tokens that verifying the best of these candidates is expected to gain over plain decoding.
    ///
    /// # Arguments
    /// * `chances` - chance of each to be accepted, best first.
    pub(crate) fn gain(&self, chances: &[f64]) -> f64 {
        let budget = self;
        let share = share_nodes(&[Bidder { budget, chances }])[0];
        let expected: f64 = chances[..share.nodes].iter().sum();
        expected - share.extra * self.price()
    }

    /// Running profit of the network's drafts, in tokens per cycle.
    pub(crate) fn profit(&self) -> f64 {
        self.profit
    }

    /// Tokens that a second of the next pass has to bring.
    pub(crate) fn price(&self) -> f64 {
        match self.load.reading {
            0 => self.pace(),
            _ => HURRY * self.pace(),
        }
    }

    /// Measured times.
    pub(crate) fn costs(&self) -> &CostTable {
        &self.costs
    }

    /// Whether to have the draft read and score in the next cycle, or why not; a pause gets shorter
    /// by asking.
    ///
    /// # Arguments
    /// * `max_levels` - levels that a tree may have.
    pub(crate) fn may_draft(&mut self, max_levels: usize) -> Result<(), Idle> {
        if self.pause > 0 {
            self.pause -= 1;
            return Err(Idle::Paused);
        }
        if !self.pays_at_best(self.load, max_levels) {
            return Err(Idle::NotWorthwhile);
        }
        let first = self.costs.read(self.unread) + self.commit_time(self.load);
        if first + self.time_of_nodes(0, 1) > self.spare() {
            return Err(Idle::TooRisky);
        }
        Ok(())
    }

    /// Seconds that may be lost in the cycle under way, on top of what is spent already. Emitting
    /// its one sure token earns something, too.
    pub(crate) fn spare(&self) -> f64 {
        let sure = (1.0 - self.advance).max(0.0);
        self.allowance + sure * self.max_loss * self.plain() - self.drafted_for - self.read_for
    }

    /// Accounts for the draft's first level, and for reading what it has not read before.
    pub(crate) fn pay_commit(&mut self) {
        self.drafted_for += self.commit_time(self.load);
        self.read_for += self.costs.read(self.unread);
        self.unread = 0;
    }

    /// Notes tokens that the draft will have to read later.
    pub(crate) fn leave_unread(&mut self, tokens: usize) {
        self.unread += tokens;
    }

    /// Accounts for another level of `rows`.
    pub(crate) fn pay_expand(&mut self, rows: usize) {
        self.drafted_for += self.expand_time(self.load, rows);
    }

    /// How many of the best candidates to verify.
    ///
    /// # Arguments
    /// * `chances` - chance of each candidate to be accepted, best first.
    pub(crate) fn worth_verifying(&self, chances: &[f64]) -> usize {
        let budget = self;
        share_nodes(&[Bidder { budget, chances }])[0].nodes
    }

    /// How many rows of a beam to expand, given the chance that the best child of each is accepted,
    /// if `n_draft` candidates are worth verifying already.
    pub(crate) fn worth_expanding(
        &self,
        n_draft: usize,
        chances: impl Iterator<Item = f64>,
    ) -> usize {
        let (mut best, mut best_profit) = (0, 0.0);
        let mut sum = 0.0;
        let spare = self.spare() - self.time_of_nodes(0, n_draft);
        for (index, chance) in chances.enumerate() {
            let rows = index + 1;
            let time = self.expand_time(self.load, rows) + self.time_of_nodes(n_draft, rows);
            if time > spare {
                break;
            }
            sum += chance;
            let profit = sum - time * self.price();
            if profit > best_profit {
                (best, best_profit) = (rows, profit);
            }
        }
        best
    }

    /// Seconds that `more` nodes take besides the root and `n_draft`.
    fn time_of_nodes(&self, n_draft: usize, more: usize) -> f64 {
        self.node_time(self.load, n_draft, more)
    }

    /// Whether one guess may be verified: if not, no tree is too small.
    pub(crate) fn affords_a_node(&self) -> bool {
        self.time_of_nodes(0, 1) <= self.spare()
    }

    /// Notes the tree that goes to the target.
    ///
    /// # Arguments
    /// * `extra` - seconds that its nodes below the root add to the pass.
    pub(crate) fn plan(&mut self, extra: f64, by_network: Planned) {
        self.extra = extra;
        self.planned = by_network;
    }

    /// Closes the accounts of a cycle that accepted `n_accepted` draft tokens, `by_network` of which
    /// only the network had proposed.
    pub(crate) fn settle(&mut self, n_accepted: usize, by_network: usize) {
        let plain = self.plain();
        let time = plain + self.extra + self.drafted_for;
        if self.drafted_for > 0.0 {
            let Planned { extra, expected } = self.planned;
            let extra = (extra + self.drafted_for) * self.pace();
            // What came true is noisy and what was expected may be wrong: half of each.
            let yielded = (expected + by_network as f64) / 2.0;
            self.profit += PROFIT_SHARE * (yielded - extra - self.profit);
            if self.profit < 0.0 {
                self.pause = self.next_pause;
                self.next_pause = (2 * self.next_pause).min(LONGEST_PAUSE);
                self.profit = 0.0;
            } else if yielded > extra {
                self.next_pause = (self.next_pause / 2).max(FIRST_PAUSE);
            }
        }
        let tokens = 1.0 + n_accepted as f64;
        let time = time + self.read_for;
        let earning = (tokens - self.advance).max(0.0);
        self.advance = (self.advance - tokens).max(0.0);
        self.allowance += (tokens + earning * self.max_loss) * plain - time;
        self.tokens = self.tokens * FORGETTING + tokens;
        self.seconds = self.seconds * FORGETTING + time;
        self.drafted_for = 0.0;
        self.read_for = 0.0;
        self.extra = 0.0;
        self.planned = Planned::default();
    }
}

#[cfg(test)]
mod tests;
