//! Whether passes take what the cost table says.
//!
//! A table that was measured while the machine was busy says too much, and wrong proportions. Other
//! work only ever adds: if passes are faster than the table says, time after time, the table is
//! wrong. If they are slower, the machine may only be busy now; that counts after long.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::{Cost, CostTable, DraftCosts, TargetCosts};
use crate::{FinishReason, GenerationObserver, GenerationStats, TokenId, TokenTree, Verdict};

/// Passes whose median is one piece of evidence: bursts shorter than half of that do not show.
const WINDOW: usize = 32;
/// Median of measured time over the table's below which passes are faster than it says. They are
/// usually slower: the table has the shortest of several.
const FAST: f64 = 0.8;
/// Median above which they are slower.
const SLOW: f64 = 1.6;
/// Windows in a row that make a table too slow …
const FAST_WINDOWS: usize = 2;
/// … or too fast, if they also took so long.
const SLOW_WINDOWS: usize = 8;
const SLOW_TIME: Duration = Duration::from_secs(30);
/// Passes of one size that say what that size takes.
const ENOUGH: usize = 8;
/// Passes that a correction goes by, at most: the latest.
const MOST_EVIDENCE: usize = 512;
/// Each correction makes the next wait so many times longer …
const PATIENCE_GROWTH: usize = 2;
/// … up to this.
const MOST_PATIENCE: usize = 64;
/// Tokens in caches beyond this multiple of those while costs were measured: what they add to a pass
/// is known too roughly to call a pass slow.
const FAR: usize = 8;

/// A pass of the target over trees.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TimedPass {
    /// Nodes of all trees, roots included.
    pub rows: usize,
    /// Tokens in the caches of all sequences together.
    pub context: usize,
    /// How long it took.
    pub time: Duration,
}

/// Compares passes with a [`CostTable`], and corrects it if it is wrong for long.
///
/// The table decides what is drafted and never which tokens come.
#[derive(Clone, Debug)]
pub struct CostWatch {
    costs: Arc<CostTable>,
    /// Passes that nothing was concluded from yet: rows, and measured time over the table's.
    evidence: Vec<(usize, f64)>,
    /// Of them, those since the last median.
    in_window: usize,
    /// What the last windows said together, and how many they are.
    direction: Direction,
    windows: usize,
    /// How long the passes of these windows took.
    time: Duration,
    patience: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Direction {
    AsSaid,
    Faster,
    Slower,
}

/// A table that was found to be wrong.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CostDrift {
    /// Median of measured time over the table's.
    pub factor: f64,
    /// How many passes that is the median of.
    pub passes: usize,
}

impl fmt::Display for CostDrift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { factor, passes } = self;
        write!(
            f,
            "{passes} passes took {factor:.2} times what was measured before"
        )?;
        if *factor < 1.0 {
            write!(f, ", when the machine must have been busy")?;
        }
        Ok(())
    }
}

impl CostWatch {
    /// Watches passes that should take what `costs` says.
    #[must_use]
    pub fn new(costs: Arc<CostTable>) -> Self {
        Self {
            costs,
            evidence: Vec::new(),
            in_window: 0,
            direction: Direction::AsSaid,
            windows: 0,
            time: Duration::ZERO,
            patience: 1,
        }
    }

    /// The table, as corrected so far.
    #[must_use]
    pub fn costs(&self) -> &Arc<CostTable> {
        &self.costs
    }

    /// Takes note of a pass; tells if the table has been corrected because of it and those before.
    pub fn note(&mut self, pass: TimedPass) -> Option<CostDrift> {
        let seconds = pass.time.as_secs_f64();
        let mut ratio = seconds / self.costs.verify_at(pass.rows, pass.context);
        if pass.context > FAR * self.costs.target_costs().context.tokens {
            ratio = ratio.min(1.0);
        }
        if !ratio.is_finite() {
            return None;
        }
        self.evidence.push((pass.rows, ratio));
        self.in_window += 1;
        self.time += pass.time;
        if self.in_window < WINDOW {
            return None;
        }
        self.judge()
    }

    /// Draws a conclusion from the window that is full.
    fn judge(&mut self) -> Option<CostDrift> {
        let start = self.evidence.len() - WINDOW;
        let direction = match median(&self.evidence[start..]) {
            ratio if ratio < FAST => Direction::Faster,
            ratio if ratio > SLOW => Direction::Slower,
            _ => Direction::AsSaid,
        };
        self.in_window = 0;
        if direction != self.direction {
            // This window is the first of its kind.
            self.evidence.drain(..start);
            self.direction = direction;
            self.windows = 0;
            self.time = Duration::ZERO;
        }
        self.windows += 1;
        let surplus = self.evidence.len().saturating_sub(MOST_EVIDENCE);
        self.evidence.drain(..surplus);
        let proven = match direction {
            Direction::AsSaid => false,
            Direction::Faster => self.windows >= FAST_WINDOWS * self.patience,
            Direction::Slower => {
                self.windows >= SLOW_WINDOWS * self.patience
                    && self.time >= SLOW_TIME * u32::try_from(self.patience).unwrap_or(u32::MAX)
            }
        };
        if !proven {
            return None;
        }
        let drift = CostDrift {
            factor: median(&self.evidence),
            passes: self.evidence.len(),
        };
        let corrected = self.corrected(drift.factor)?;
        *self = Self {
            patience: (self.patience * PATIENCE_GROWTH).min(MOST_PATIENCE),
            ..Self::new(Arc::new(corrected))
        };
        Some(drift)
    }

    /// The table that fits the evidence: sizes that were seen often take what they took, everything
    /// else is scaled by `factor`.
    fn corrected(&self, factor: f64) -> Option<CostTable> {
        let scaled = |cost: &Cost| Cost {
            seconds: cost.seconds * factor,
            ..*cost
        };
        let target = self.costs.target_costs();
        let mut least = 0.0_f64;
        let verify = target.verify.iter().enumerate().map(|(index, cost)| {
            let seen = self.evidence.iter().filter(|&&(rows, _)| {
                let nearest = |cost: &&Cost| cost.rows.abs_diff(rows);
                target.verify.iter().min_by_key(nearest) == target.verify.get(index)
            });
            let seen = Vec::from_iter(seen.copied());
            let own = (seen.len() >= ENOUGH).then(|| median(&seen));
            // One pass never costs more than a larger one.
            least = least.max(cost.seconds * own.unwrap_or(factor));
            Cost {
                seconds: least,
                ..*cost
            }
        });
        let verify = verify.collect();
        let target = TargetCosts {
            prefill: target.prefill * factor,
            verify,
            context: super::ContextCost {
                per_token: target.context.per_token * factor,
                ..target.context
            },
        };
        let draft = self.costs.draft_costs().map(|draft| DraftCosts {
            read: draft.read * factor,
            commit: draft.commit * factor,
            expand: draft.expand.iter().map(scaled).collect(),
        });
        // Scaled by a number that is no number, nothing is corrected.
        CostTable::new(target, draft).ok()
    }
}

/// Median of the ratios; 1 of none.
fn median(evidence: &[(usize, f64)]) -> f64 {
    let mut ratios = Vec::from_iter(evidence.iter().map(|&(_, ratio)| ratio));
    let middle = ratios.len() / 2;
    if ratios.is_empty() {
        return 1.0;
    }
    *ratios.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// Has a [`CostWatch`] hear of the passes of a generation that has them to itself.
pub struct WatchedPasses<'a> {
    observer: &'a mut dyn GenerationObserver,
    watch: Option<&'a mut CostWatch>,
    /// Tokens in the cache before the pass.
    context: usize,
    drift: Option<CostDrift>,
}

impl fmt::Debug for WatchedPasses<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchedPasses")
            .field("watch", &self.watch)
            .finish_non_exhaustive()
    }
}

impl<'a> WatchedPasses<'a> {
    /// Tells `observer` everything and `watch`, if there is one, of passes.
    pub fn new(observer: &'a mut dyn GenerationObserver, watch: Option<&'a mut CostWatch>) -> Self {
        Self {
            observer,
            watch,
            context: 0,
            drift: None,
        }
    }

    /// What was corrected last, if anything was.
    #[must_use]
    pub fn drift(&self) -> Option<CostDrift> {
        self.drift
    }
}

impl GenerationObserver for WatchedPasses<'_> {
    fn on_prefill(&mut self, prompt_tokens: usize, time: Duration) {
        // The first token goes through the target with the first tree.
        self.context = prompt_tokens.saturating_sub(1);
        self.observer.on_prefill(prompt_tokens, time);
    }

    fn on_draft(&mut self, tree: &TokenTree, time: Duration) {
        self.observer.on_draft(tree, time);
    }

    fn on_verify(&mut self, tree: &TokenTree, verdict: &Verdict, time: Duration) {
        let pass = TimedPass {
            rows: tree.n_nodes(),
            context: self.context,
            time,
        };
        if let Some(watch) = &mut self.watch {
            self.drift = watch.note(pass).or(self.drift);
        }
        self.observer.on_verify(tree, verdict, time);
    }

    fn on_tokens(&mut self, tokens: &[TokenId]) -> ControlFlow<()> {
        self.context += tokens.len();
        self.observer.on_tokens(tokens)
    }

    fn on_finish(&mut self, reason: FinishReason, stats: &GenerationStats) {
        self.observer.on_finish(reason, stats);
    }
}
