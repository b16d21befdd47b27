//! Comparison of actual passes with the cost table.
//!
//! A table that was measured while the machine was busy has times that are too long and in the
//! wrong proportions. Other work only ever adds time: if passes are repeatedly faster than the
//! table, the table is wrong. If they are slower, the machine may only be busy now, so slower
//! passes count only after a long time.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::{Cost, CostTable, DraftCosts, TargetCosts};
use crate::{FinishReason, GenerationObserver, GenerationStats, TokenId, TokenTree, Verdict};

/// Passes per window. The median of a window is one piece of evidence; bursts shorter than half a
/// window do not affect it.
const WINDOW: usize = 32;
/// Passes are faster than the table if the median ratio of measured time to table time is below
/// this. They are usually slower, since the table holds the shortest of several times.
const FAST: f64 = 0.8;
/// Passes are slower than the table if the median ratio is above this.
const SLOW: f64 = 1.6;
/// Consecutive faster windows that prove the table too slow.
const FAST_WINDOWS: usize = 2;
/// Consecutive slower windows that prove the table too fast, if they also took [`SLOW_TIME`].
const SLOW_WINDOWS: usize = 8;
const SLOW_TIME: Duration = Duration::from_secs(30);
/// Number of passes of one size that determines the time of that size.
const ENOUGH: usize = 8;
/// Maximum number of passes, the latest ones, that a correction is based on.
const MOST_EVIDENCE: usize = 512;
/// Factor on the evidence required for the next correction, per correction.
const PATIENCE_GROWTH: usize = 2;
/// Upper bound of the patience.
const MOST_PATIENCE: usize = 64;
/// Multiple of the measured context beyond which the time added by cached tokens is too uncertain
/// to call a pass slow.
const FAR: usize = 8;

/// A pass of the target over trees.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TimedPass {
    /// Number of nodes of all trees, roots included.
    pub rows: usize,
    /// Number of tokens in the caches of all sequences together.
    pub context: usize,
    /// Measured time of the pass.
    pub time: Duration,
}

/// Compares passes with a [`CostTable`], and corrects the table if it is persistently wrong.
///
/// The table affects the drafts, never the tokens.
#[derive(Clone, Debug)]
pub struct CostWatch {
    costs: Arc<CostTable>,
    /// Passes that no conclusion was drawn from yet: rows, and ratio of measured time to table
    /// time.
    evidence: Vec<(usize, f64)>,
    /// Number of those passes since the last median.
    in_window: usize,
    /// Common direction of the last windows, and their number.
    direction: Direction,
    windows: usize,
    /// Total time of the passes in these windows.
    time: Duration,
    patience: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Direction {
    AsSaid,
    Faster,
    Slower,
}

/// A correction of a wrong table.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct CostDrift {
    /// Median ratio of measured time to table time.
    pub factor: f64,
    /// Number of passes behind the median.
    pub passes: usize,
}

impl fmt::Display for CostDrift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { factor, passes } = self;
        write!(
            f,
            "{passes} passes took {factor:.2} times as long as measured before"
        )?;
        if *factor < 1.0 {
            write!(f, ", when the machine must have been busy")?;
        }
        Ok(())
    }
}

impl CostWatch {
    /// Watches passes that are expected to take the times of `costs`.
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

    /// Returns the table with all corrections so far.
    #[must_use]
    pub fn costs(&self) -> &Arc<CostTable> {
        &self.costs
    }

    /// Records a pass; returns the correction if this pass and earlier ones caused one.
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

    /// Draws a conclusion from a full window.
    fn judge(&mut self) -> Option<CostDrift> {
        let start = self.evidence.len() - WINDOW;
        let direction = match median(&self.evidence[start..]) {
            ratio if ratio < FAST => Direction::Faster,
            ratio if ratio > SLOW => Direction::Slower,
            _ => Direction::AsSaid,
        };
        self.in_window = 0;
        if direction != self.direction {
            // This window is the first with this direction.
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

    /// Returns the table that fits the evidence: sizes observed often enough get their own median,
    /// and all other times are scaled by `factor`.
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
            // A pass never costs more than a larger one.
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
        // If the factor is NaN, nothing is corrected.
        CostTable::new(target, draft).ok()
    }
}

/// Returns the median of the ratios; 1 if there are none.
fn median(evidence: &[(usize, f64)]) -> f64 {
    let mut ratios = Vec::from_iter(evidence.iter().map(|&(_, ratio)| ratio));
    let middle = ratios.len() / 2;
    if ratios.is_empty() {
        return 1.0;
    }
    *ratios.select_nth_unstable_by(middle, f64::total_cmp).1
}

/// Reports the passes of a generation that has them to itself to a [`CostWatch`].
pub struct WatchedPasses<'a> {
    observer: &'a mut dyn GenerationObserver,
    watch: Option<&'a mut CostWatch>,
    /// Number of tokens in the cache before the pass.
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
    /// Forwards all events to `observer`, and passes to `watch`, if there is one.
    pub fn new(observer: &'a mut dyn GenerationObserver, watch: Option<&'a mut CostWatch>) -> Self {
        Self {
            observer,
            watch,
            context: 0,
            drift: None,
        }
    }

    /// Returns the last correction, if any.
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
