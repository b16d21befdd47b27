//! Prediction of the results of other trees, from acceptance by depth and the cost of passes.
//!
//! Assumptions and their consequences:
//!
//! * *Fewer levels.* Acceptance at a level does not depend on whether deeper levels were drafted.
//!   This is exact for the recorded nodes, so `tau` of the first `l` levels is the sum of the first
//!   `l` entries of acceptance by depth. A tree that spends the saved nodes on more width would do
//!   better, so the figure is a lower bound for the same number of nodes.
//! * *Fewer nodes.* Trees keep the best nodes by the draft's score, so a smaller tree is a subset
//!   of the larger one and cannot accept more: the recorded `tau` is an upper bound. If nodes with
//!   lower draft scores are, on average, accepted no more often, `tau` is concave in the number of
//!   nodes and lies above the line from (1 node, 0) to the recorded point, which is a lower bound.
//! * *More levels or nodes* than recorded, and *another width*, are not predicted: the records hold
//!   no data about them.
//! * *Time of a cycle.* One draft step per level, the first over the tokens of the last cycle and
//!   the others over `top_k` rows; one verify pass; and the remaining time of a recorded cycle. The
//!   drafter's prefill is left out, so short answers are predicted to be too fast.

use crate::record::{CostPoint, CostTable, TotalToken, TreeSettings};
use crate::series::Series;
use crate::statistics::Acceptance;

/// A tree to predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeChoice {
    /// Levels below the root: upstream's depth + 1.
    pub levels: u32,
    /// Nodes that are expanded in each step: upstream's top-k.
    pub width: u32,
    /// Nodes that the target verifies, the root included.
    pub nodes: u32,
}

impl TreeChoice {
    /// Returns the same tree in upstream's flags.
    pub(crate) fn settings(self) -> TreeSettings {
        TreeSettings {
            depth: self.levels.saturating_sub(1),
            top_k: self.width,
            total_token: TotalToken::Nodes(self.nodes),
        }
    }
}

/// Bounds of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    /// Lower bound, under the assumptions of the module.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

/// A prediction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prediction {
    /// The predicted tree.
    pub tree: TreeChoice,
    /// Accepted draft tokens per cycle.
    pub tau: Bounds,
    /// Predicted time of a cycle in milliseconds.
    pub cycle_ms: f64,
    /// Predicted speed-up of the cycles only.
    pub speed_up: Bounds,
}

/// Recorded data of a series, from which predictions start.
#[derive(Debug, Clone)]
pub struct Recorded {
    acceptance: Acceptance,
    costs: CostTable,
    tree: TreeChoice,
    tau: f64,
    plain_cycle_ms: f64,
    other_ms: f64,
}

impl Recorded {
    /// Takes the data of a series. Returns `None` if the series has no costs, no trees, or no fixed
    /// number of nodes.
    #[must_use]
    pub fn of(series: &Series) -> Option<Self> {
        let tree = series.key.tree?;
        let TotalToken::Nodes(nodes) = tree.total_token else {
            return None;
        };
        let mut costs = series.costs.clone()?;
        let pooled = &series.pooled;
        let cycles = pooled.cycles();
        if cycles == 0 || pooled.plain_cycles == 0 {
            return None;
        }
        // Cost measurement stops at sizes that cannot pay; the records have the time of their own
        // tree.
        if costs.verify.last().is_some_and(|last| last.rows < nodes) {
            costs.verify.push(CostPoint {
                rows: nodes,
                ms: pooled.speculative_ms.verify / cycles as f64,
            });
        }
        let acceptance = Acceptance::from_histogram(&pooled.accepted_histogram);
        let plain_other = pooled.plain_ms.other / pooled.plain_cycles as f64;
        Some(Self {
            tau: acceptance.tau_within(usize::MAX),
            acceptance,
            plain_cycle_ms: costs.verify_ms(1.0)? + plain_other,
            costs,
            tree: TreeChoice {
                levels: tree.levels(),
                width: tree.top_k,
                nodes,
            },
            other_ms: pooled.speculative_ms.other / cycles as f64,
        })
    }

    /// Returns the recorded tree.
    #[must_use]
    pub fn tree(&self) -> TreeChoice {
        self.tree
    }

    /// Predicts a tree. Returns `None` if it has more levels or nodes than recorded, another width,
    /// or a pass that is larger than the timed ones.
    #[must_use]
    pub fn predict(&self, tree: TreeChoice) -> Option<Prediction> {
        let recorded = self.tree;
        if tree.levels == 0
            || tree.levels > recorded.levels
            || tree.width != recorded.width
            || tree.nodes > recorded.nodes
        {
            return None;
        }
        let levels = tree.levels.min(tree.nodes - 1) as usize;
        let high = self.acceptance.tau_within(levels);
        let kept = if recorded.nodes > 1 {
            f64::from(tree.nodes - 1) / f64::from(recorded.nodes - 1)
        } else {
            1.0
        };
        let low = (high * kept).min(high);
        let cycle_ms = self.cycle_ms(tree)?;
        let speed_up = |tau: f64| (tau + 1.0) * self.plain_cycle_ms / cycle_ms;
        Some(Prediction {
            tree,
            tau: Bounds { low, high },
            cycle_ms,
            speed_up: Bounds {
                low: speed_up(low),
                high: speed_up(high),
            },
        })
    }

    /// Predicts every number of levels, each with the recorded number of nodes and with all smaller
    /// numbers of nodes that were timed.
    #[must_use]
    pub fn grid(&self) -> Vec<Prediction> {
        let timed = self.costs.verify.iter().map(|point| point.rows);
        let mut sizes: Vec<u32> = timed
            .filter(|&nodes| nodes > 1 && nodes < self.tree.nodes)
            .collect();
        sizes.push(self.tree.nodes);
        let choices = (1..=self.tree.levels).flat_map(|levels| {
            sizes
                .iter()
                .filter(move |&&nodes| nodes > levels)
                .map(move |&nodes| (levels, nodes))
        });
        choices
            .filter_map(|(levels, nodes)| {
                self.predict(TreeChoice {
                    levels,
                    width: self.tree.width,
                    nodes,
                })
            })
            .collect()
    }

    fn cycle_ms(&self, tree: TreeChoice) -> Option<f64> {
        let first = self.costs.draft_step_ms(self.tau + 1.0)?;
        let further = self.costs.draft_step_ms(f64::from(tree.width))?;
        let verify = self.costs.verify_ms(f64::from(tree.nodes))?;
        Some(first + f64::from(tree.levels - 1) * further + verify + self.other_ms)
    }
}
