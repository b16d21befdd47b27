//! Comparison of measured pass times with expected costs.

use std::sync::Arc;
use std::time::Duration;

use vispec_core::{AutoTree, CostDrift, CostWatch, PassRows, PassTimes, TimedPass, TreeSize};

/// Compares passes with the costs used to size trees.
#[derive(Debug)]
pub(super) struct PassCosts {
    /// `None` if trees have a fixed size.
    watch: Option<CostWatch>,
}

/// The time that plain decoding would have taken for the tokens of a pass, and the time spent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Gained {
    pub(super) plain: Duration,
    pub(super) spent: Duration,
}

impl PassCosts {
    pub(super) fn new(tree: &TreeSize) -> Self {
        let watch = match tree {
            TreeSize::Fixed(_) => None,
            TreeSize::Auto(limits) => Some(CostWatch::new(Arc::clone(&limits.costs))),
        };
        Self { watch }
    }

    /// Returns `tree` with the costs known now.
    pub(super) fn tree(&self, tree: &TreeSize) -> TreeSize {
        match (tree, &self.watch) {
            (TreeSize::Auto(limits), Some(watch)) => TreeSize::Auto(AutoTree {
                costs: Arc::clone(watch.costs()),
                ..limits.clone()
            }),
            _ => tree.clone(),
        }
    }

    /// Records a pass. Returns the time it gained, if it contains only trees, and the drift if the
    /// costs have been corrected.
    pub(super) fn note(
        &mut self,
        rows: PassRows,
        times: PassTimes,
        emitted: usize,
    ) -> (Gained, Option<CostDrift>) {
        let Some(watch) = self.watch.as_mut().filter(|_| rows.prompt == 0) else {
            return Default::default();
        };
        if rows.sequences == 0 {
            return Default::default();
        }
        // Plain decoding would have taken passes over the roots only, one per token of each
        // sequence.
        let costs = watch.costs();
        let roots = costs.verify(rows.sequences) / costs.verify(rows.tree);
        let passes = emitted as f64 / rows.sequences as f64;
        let plain = Duration::try_from_secs_f64(times.target.as_secs_f64() * roots * passes);
        let gained = Gained {
            plain: plain.unwrap_or_default(),
            spent: times.draft + times.target,
        };
        let drift = watch.note(TimedPass {
            rows: rows.tree,
            context: rows.context,
            time: times.target,
        });
        (gained, drift)
    }
}

#[cfg(test)]
mod tests {
    use vispec_core::{ContextCost, Cost, CostTable, TargetCosts, TreeShape};

    use super::*;

    fn costs() -> PassCosts {
        let cost = |rows, seconds| Cost { rows, seconds };
        let target = TargetCosts {
            prefill: 0.1,
            verify: vec![cost(1, 1.0), cost(4, 1.5), cost(16, 6.0)],
            context: ContextCost {
                tokens: 256,
                per_token: 0.0,
            },
        };
        let table = CostTable::new(target, None).unwrap();
        PassCosts::new(&AutoTree::new(Arc::new(table)).into())
    }

    fn rows(sequences: usize, tree: usize) -> PassRows {
        PassRows {
            sequences,
            tree,
            context: 100,
            ..PassRows::default()
        }
    }

    fn times(draft: f64, target: f64) -> PassTimes {
        PassTimes {
            draft: Duration::from_secs_f64(draft),
            target: Duration::from_secs_f64(target),
        }
    }

    #[test]
    fn what_a_pass_gained_is_counted_in_passes_over_the_roots() {
        let millis = |(gained, _): (Gained, Option<CostDrift>)| {
            [gained.plain, gained.spent].map(|time| time.as_millis())
        };
        // One sequence: three tokens from one pass of four rows.
        let alone = costs().note(rows(1, 4), times(0.5, 3.0), 3);
        assert_eq!(millis(alone), [6_000, 3_500]);
        // Four sequences without drafts: one token each.
        let plain = costs().note(rows(4, 4), times(0.0, 2.0), 4);
        assert_eq!(millis(plain), [2_000, 2_000]);
        // Four sequences with two tokens each, from a pass that takes four times as long.
        let many = costs().note(rows(4, 16), times(1.0, 8.0), 8);
        assert_eq!(millis(many), [4_000, 9_000]);
        // Passes with prompt rows: unknown.
        let reading = PassRows {
            prompt: 10,
            ..rows(1, 4)
        };
        assert_eq!(millis(costs().note(reading, times(0.5, 3.0), 3)), [0; 2]);
        let fixed = TreeSize::from(TreeShape::default());
        let unknown = PassCosts::new(&fixed).note(rows(1, 4), times(0.5, 3.0), 3);
        assert_eq!(millis(unknown), [0; 2]);
    }

    #[test]
    fn later_trees_go_by_corrected_costs() {
        let mut costs = costs();
        let first = costs.watch.as_ref().unwrap().costs().clone();
        let size = TreeSize::from(AutoTree::new(first));
        assert_eq!(costs.tree(&size), size);
        let drift = (0..200).find_map(|_| costs.note(rows(1, 1), times(0.0, 0.5), 1).1);
        assert!((drift.unwrap().factor - 0.5).abs() < 1e-9);
        let TreeSize::Auto(limits) = costs.tree(&size) else {
            panic!("still sized by cost");
        };
        assert!((limits.costs.verify(16) - 3.0).abs() < 1e-9);
    }
}
