//! Trees sized by measured cost: selection of the guesses that are worth their share of a verify
//! pass.
//!
//! A large tree is worth verifying where a pass over it takes hardly longer than a pass over the
//! root, as on a GPU. On a CPU, each node beyond the first few adds time. So the size must follow
//! from measured times ([`CostTable`]) and from the chances of the guesses.
//!
//! A cycle that is expected to emit `1 + Σ q` tokens in `t` seconds is compared with the pace of
//! the run so far: a step is worth its time if it yields more tokens than the run would have
//! emitted in that time. (This is the greedy rule of renewal-reward processes; its fixed point has
//! the greatest pace.) All times come from the table, never from the clock, so the drafts are a
//! function of table, model and prompt.
//!
//! Promising guesses may still fail, and the first guesses of a run are made without any
//! observations. So drafting has an allowance: a small share ([`AutoTree::max_loss`]) of the time
//! that plain decoding would have taken so far, with the share of the first [`AutoTree::ADVANCE`]
//! tokens granted in advance. Accepted guesses add the time that they saved, rejected guesses
//! subtract the time that they cost, and nothing is drafted that could overdraw the allowance. By
//! the table's times, an answer of at least that many tokens never exceeds the time of plain
//! decoding by more than that share. A prefill counts as at most [`LONGEST_PREFILL`] passes, so
//! that the allowance of a long prompt cannot slow down a short answer noticeably.
//!
//! If a pass carries several sequences ([`PassLoad`]), the cost of a node is the time that it adds
//! to a pass that already holds the other sequences' rows (doubled while a sequence waits for its
//! first token), and the value of a token is its share of a pass over all roots. So trees shrink as
//! the pass fills, down to their roots. The decision whether to draft assumes that all sequences
//! draft; then the candidates of all drafting sequences compete in one list ([`share_nodes`]).

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

/// Factor on the weight of a cycle with each further cycle.
const FORGETTING: f64 = 0.97;
/// Cycles of plain decoding that initialise the pace.
const HEAD_START: f64 = 4.0;
/// Length of the first pause, in cycles; each further pause is twice as long.
const FIRST_PAUSE: u32 = 4;
/// Maximum length of a pause, in cycles.
const LONGEST_PAUSE: u32 = 64;
/// Weight of the newest cycle in the running profit.
const PROFIT_SHARE: f64 = 0.2;
/// Maximum contribution of a prefill to the allowance, in passes over a root.
const LONGEST_PREFILL: f64 = 32.0;

/// Factor on the price of time while prompts are being read.
const HURRY: f64 = 2.0;

/// Chance of each token of a chain for the best possible draft.
const BEST_CHANCE: f64 = 0.9;

/// Upper bounds of trees whose size is chosen in each cycle.
#[derive(Clone, PartialEq, Debug)]
pub struct AutoTree {
    /// Measured times.
    pub costs: Arc<CostTable>,
    /// Maximum number of levels below the root.
    pub max_levels: usize,
    /// Maximum number of nodes expanded per level, and of children considered per node.
    pub beam_width: usize,
    /// Maximum number of nodes verified, the root included.
    pub max_nodes: usize,
    /// Maximum time that drafting may lose, as a share of the time of plain decoding, prefill
    /// included. An answer shorter than [`ADVANCE`](Self::ADVANCE) counts as that long.
    pub max_loss: f64,
}

impl AutoTree {
    /// Default of [`max_loss`](Self::max_loss). `tests/replay` and `docs/speed.md` compare the
    /// gains and losses of other values.
    pub const DEFAULT_MAX_LOSS: f64 = 0.05;
    /// Number of tokens whose share may be lost before they are emitted, so that the first cycles
    /// can draft; most answers are longer.
    pub const ADVANCE: usize = 32;

    /// Creates bounds that are wide enough for any machine that profits from adaptive trees: 8
    /// levels, a beam of 8, 64 nodes, a loss of 5 %.
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
    /// Seconds that may be lost; see the module docs.
    allowance: f64,
    /// Tokens whose share was granted in advance and that are not yet emitted.
    advance: f64,
    /// Tokens that the draft has not yet read.
    unread: usize,
    /// Drafting time of the current cycle.
    drafted_for: f64,
    read_for: f64,
    /// Seconds that the tree's nodes below the root add to the pass.
    extra: f64,
    planned: Planned,
    load: PassLoad,
}

/// The nodes of a tree that only the network proposed.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Planned {
    /// Seconds that these nodes add to the pass.
    pub(crate) extra: f64,
    /// Expected number of accepted nodes among them.
    pub(crate) expected: f64,
}

impl Budget {
    /// Creates the accounts of a generation after a prompt of `prompt_tokens`. The draft does not
    /// have to read the prompt unless [`leave_unread`](Self::leave_unread) adds its tokens.
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

    /// Starts the accounts of another generation under the same load.
    pub(crate) fn restart(&mut self, prompt_tokens: usize) {
        let load = self.load;
        *self = Self::new(Arc::clone(&self.costs), self.max_loss, prompt_tokens);
        self.load = load;
    }

    /// Sets the load of the next pass.
    pub(crate) fn note_load(&mut self, load: PassLoad) {
        self.load = load;
    }

    /// Returns the load last set by [`note_load`](Self::note_load).
    pub(crate) fn load(&self) -> PassLoad {
        self.load
    }

    /// Returns whether the best possible draft could pay for a single sequence. If not, the draft
    /// is not even given the prompt to read.
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

    /// Returns this sequence's share of the seconds of the draft's first level, if all sequences
    /// draft.
    fn commit_time(&self, load: PassLoad) -> f64 {
        let sequences = load.sequences.max(1);
        let others = self.costs.expand(sequences) - self.costs.expand(1);
        (self.costs.commit() + others) / sequences as f64
    }

    /// Returns this sequence's share of the seconds of another level, if all sequences expand
    /// `rows`.
    fn expand_time(&self, load: PassLoad, rows: usize) -> f64 {
        let sequences = load.sequences.max(1);
        self.costs.expand(rows * sequences) / sequences as f64
    }

    /// Returns this sequence's share of the seconds that `more` nodes of each sequence add to its
    /// root and `n_draft` nodes. The other sequences are assumed to draft as much.
    fn node_time(&self, load: PassLoad, n_draft: usize, more: usize) -> f64 {
        let sequences = load.sequences.max(1);
        let rows = load.rows + 1 + n_draft * sequences;
        let extra = self.costs.verify(rows + more * sequences) - self.costs.verify(rows);
        extra / sequences as f64
    }

    /// Returns a sequence's share of a pass over the roots of all sequences: the time of a token
    /// without drafts.
    fn seconds_per_token(&self, load: PassLoad) -> f64 {
        let sequences = load.sequences.max(1);
        self.costs.verify(sequences) / sequences as f64
    }

    /// Returns the seconds per token of plain decoding.
    fn plain(&self) -> f64 {
        self.seconds_per_token(self.load)
    }

    /// Returns the tokens per second of the run so far, at least that of plain decoding.
    pub(crate) fn pace(&self) -> f64 {
        (self.tokens / self.seconds).max(1.0 / self.plain())
    }

    /// Returns the number of tokens that verifying the best of these candidates is expected to gain
    /// over plain decoding.
    ///
    /// # Arguments
    /// * `chances` - chance of acceptance of each candidate, best first.
    pub(crate) fn gain(&self, chances: &[f64]) -> f64 {
        let budget = self;
        let share = share_nodes(&[Bidder { budget, chances }])[0];
        let expected: f64 = chances[..share.nodes].iter().sum();
        expected - share.extra * self.price()
    }

    /// Returns the running profit of the network's drafts, in tokens per cycle.
    pub(crate) fn profit(&self) -> f64 {
        self.profit
    }

    /// Returns the number of tokens that a second of the next pass must yield.
    pub(crate) fn price(&self) -> f64 {
        match self.load.reading {
            0 => self.pace(),
            _ => HURRY * self.pace(),
        }
    }

    /// Returns the measured times.
    pub(crate) fn costs(&self) -> &CostTable {
        &self.costs
    }

    /// Returns whether the draft should read and score in the next cycle, or why not. Each call
    /// shortens a pause by one cycle.
    ///
    /// # Arguments
    /// * `max_levels` - maximum number of levels of a tree.
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

    /// Returns the seconds that may still be lost in the current cycle, beyond those already spent.
    /// The cycle's one certain token adds to the allowance, too.
    pub(crate) fn spare(&self) -> f64 {
        let sure = (1.0 - self.advance).max(0.0);
        self.allowance + sure * self.max_loss * self.plain() - self.drafted_for - self.read_for
    }

    /// Accounts for the draft's first level, and for reading the tokens that it has not yet read.
    pub(crate) fn pay_commit(&mut self) {
        self.drafted_for += self.commit_time(self.load);
        self.read_for += self.costs.read(self.unread);
        self.unread = 0;
    }

    /// Adds tokens that the draft will have to read later.
    pub(crate) fn leave_unread(&mut self, tokens: usize) {
        self.unread += tokens;
    }

    /// Accounts for another level with `rows`.
    pub(crate) fn pay_expand(&mut self, rows: usize) {
        self.drafted_for += self.expand_time(self.load, rows);
    }

    /// Returns how many of the best candidates to verify.
    ///
    /// # Arguments
    /// * `chances` - chance of acceptance of each candidate, best first.
    pub(crate) fn worth_verifying(&self, chances: &[f64]) -> usize {
        let budget = self;
        share_nodes(&[Bidder { budget, chances }])[0].nodes
    }

    /// Returns how many rows of a beam to expand, given the chance that the best child of each row
    /// is accepted. `n_draft` candidates are already worth verifying.
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

    /// Returns the seconds that `more` nodes add to the root and `n_draft` nodes.
    fn time_of_nodes(&self, n_draft: usize, more: usize) -> f64 {
        self.node_time(self.load, n_draft, more)
    }

    /// Returns whether the allowance covers one guess; if not, no tree is small enough.
    pub(crate) fn affords_a_node(&self) -> bool {
        self.time_of_nodes(0, 1) <= self.spare()
    }

    /// Records the tree that goes to the target.
    ///
    /// # Arguments
    /// * `extra` - seconds that the nodes below the root add to the pass.
    pub(crate) fn plan(&mut self, extra: f64, by_network: Planned) {
        self.extra = extra;
        self.planned = by_network;
    }

    /// Closes the accounts of a cycle that accepted `n_accepted` draft tokens. Only the network had
    /// proposed `by_network` of them.
    pub(crate) fn settle(&mut self, n_accepted: usize, by_network: usize) {
        let plain = self.plain();
        let time = plain + self.extra + self.drafted_for;
        if self.drafted_for > 0.0 {
            let Planned { extra, expected } = self.planned;
            let extra = (extra + self.drafted_for) * self.pace();
            // The observed count is noisy and the expected count may be wrong, so their mean is
            // used.
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
