//! Costs that determine tree sizes, and their comparison with actual passes.

use vispec_core::{
    AutoTree, CostDrift, CostWatch, GenerationObserver, SpeculationSummary, TreeSize, WatchedPasses,
};
use vispec_models::{CalibrationPlace, Engine, Method, doubt_costs};

use crate::run::Run;

/// The costs of one program, corrected by its own passes.
#[derive(Debug)]
pub struct MeasuredPasses {
    place: CalibrationPlace,
    /// `None` if trees have a fixed size.
    watch: Option<CostWatch>,
}

impl MeasuredPasses {
    /// Compares passes with the costs that size `tree`; the costs are saved at `place`.
    #[must_use]
    pub fn new(tree: &TreeSize, place: CalibrationPlace) -> Self {
        let watch = match tree {
            TreeSize::Fixed(_) => None,
            TreeSize::Auto(limits) => Some(CostWatch::new(limits.costs.clone())),
        };
        Self { place, watch }
    }

    /// Returns `tree` with the current costs.
    #[must_use]
    pub fn tree(&self, tree: TreeSize) -> TreeSize {
        match (tree, &self.watch) {
            (TreeSize::Auto(limits), Some(watch)) => TreeSize::Auto(AutoTree {
                costs: watch.costs().clone(),
                ..limits
            }),
            (tree, _) => tree,
        }
    }

    /// Forwards the events of a generation to `observer`, and watches its passes.
    pub fn watch<'a>(&'a mut self, observer: &'a mut dyn GenerationObserver) -> WatchedPasses<'a> {
        WatchedPasses::new(observer, self.watch.as_mut())
    }

    /// Marks costs that proved wrong, so that the next program measures again; returns a message
    /// for the user.
    #[must_use]
    pub fn doubt(&self, engine: &Engine, method: Method, drift: CostDrift) -> String {
        let corrected = format!("{drift}: trees are sized by corrected times from now on");
        match doubt_costs(engine, method, &self.place, drift) {
            Ok(()) => format!("{corrected}, and the next run measures again"),
            Err(error) => format!("{corrected}, but the file could not be updated: {error}"),
        }
    }

    /// Returns the summary of speculation in a run; `None` for plain decoding, and if nothing was
    /// decoded.
    #[must_use]
    pub fn summary(&self, run: &Run) -> Option<SpeculationSummary> {
        let costs = self.watch.as_ref().map(|watch| &**watch.costs());
        let summary = SpeculationSummary::new(&run.generation.stats, costs);
        summary.filter(|_| run.method != Method::None)
    }
}
