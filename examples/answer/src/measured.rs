//! Costs that trees are sized by, and whether passes take what they say.

use vispec_core::{
    AutoTree, CostDrift, CostWatch, GenerationObserver, SpeculationSummary, TreeSize, WatchedPasses,
};
use vispec_models::{CalibrationPlace, Engine, Method, doubt_costs};

use crate::run::Run;

/// The costs of one program, corrected as its passes turn out.
#[derive(Debug)]
pub struct MeasuredPasses {
    place: CalibrationPlace,
    /// Unless trees have a fixed size.
    watch: Option<CostWatch>,
}

impl MeasuredPasses {
    /// Watches whether passes take what `tree` is sized by, which is kept at `place`.
    #[must_use]
    pub fn new(tree: &TreeSize, place: CalibrationPlace) -> Self {
        let watch = match tree {
            TreeSize::Fixed(_) => None,
            TreeSize::Auto(limits) => Some(CostWatch::new(limits.costs.clone())),
        };
        Self { place, watch }
    }

    /// `tree` by the costs as they are known now.
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

    /// Tells `observer` of a generation, and watches its passes.
    pub fn watch<'a>(&'a mut self, observer: &'a mut dyn GenerationObserver) -> WatchedPasses<'a> {
        WatchedPasses::new(observer, self.watch.as_mut())
    }

    /// Has the next program measure again what turned out to be wrong; what to tell the user of it.
    #[must_use]
    pub fn doubt(&self, engine: &Engine, method: Method, drift: CostDrift) -> String {
        let corrected = format!("{drift}: trees are sized by corrected times from now on");
        match doubt_costs(engine, method, &self.place, drift) {
            Ok(()) => format!("{corrected}, and the next run measures again"),
            Err(error) => format!("{corrected}, but the file keeps the others: {error}"),
        }
    }

    /// What drafting did for a run; `None` for plain decoding, and if nothing was decoded.
    #[must_use]
    pub fn summary(&self, run: &Run) -> Option<SpeculationSummary> {
        let costs = self.watch.as_ref().map(|watch| &**watch.costs());
        let summary = SpeculationSummary::new(&run.generation.stats, costs);
        summary.filter(|_| run.method != Method::None)
    }
}
