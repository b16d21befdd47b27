//! Training objectives.

use serde::{Deserialize, Serialize};

use crate::data::LossMask;

/// The hidden states that the Medusa heads learn to predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MedusaTargets {
    /// Head `i` learns the state `i + 1` tokens ahead.
    Shifted,
    /// All heads learn the next state, except that head `i` learns zeros at the first `i`
    /// positions. Upstream's training does this by mistake.
    Upstream,
}

/// The loss that training minimises.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Objective {
    /// `value_weight * V + probability_weight * (CE + ranking_weight * R)` of one pass, where `V`
    /// is the smooth L1 distance between hidden states, `CE` the cross entropy and `R` the ranking
    /// loss.
    Stage1 {
        /// Weight of `V`; upstream's is 1.
        value_weight: f64,
        /// Weight of the terms that are computed through the head; upstream's is 0.1.
        probability_weight: f64,
        /// Weight of `R` within those terms; upstream's is 0.1.
        ranking_weight: f64,
    },
    /// `probability_weight * L1 + ranking_weight * R` over `1 + unrolled_passes` passes, where `L1`
    /// is the L1 distance between distributions.
    Stage2 {
        /// Passes that read the draft's own output; upstream recommends 1.
        unrolled_passes: usize,
        /// Weight of `L1`; upstream's is 10.
        probability_weight: f64,
        /// Weight of `R`; upstream's is 0.1.
        ranking_weight: f64,
    },
    /// The sum over `passes` of `decay^k * CE` (EAGLE-3's training-time test). As in drafting, pass
    /// `k` continues from the output of the pass before it.
    TestTime {
        /// Number of passes, including the first; 7 in EAGLE-3.
        passes: usize,
        /// Weight of each pass relative to the one before it; 0.8 in EAGLE-3.
        decay: f64,
    },
    /// The mean over heads of `value_weight * V + probability_weight * CE`.
    Medusa {
        /// Hidden states that the heads learn.
        targets: MedusaTargets,
        /// Weight of `V`; upstream's is 1.
        value_weight: f64,
        /// Weight of `CE`; upstream's is 0.1.
        probability_weight: f64,
    },
}

impl Objective {
    /// Returns the name of the kind in configs.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Stage1 { .. } => "stage1",
            Self::Stage2 { .. } => "stage2",
            Self::TestTime { .. } => "test_time",
            Self::Medusa { .. } => "medusa",
        }
    }

    /// Returns how the loss masks of samples are read.
    #[must_use]
    pub fn loss_mask(&self) -> LossMask {
        match self {
            Self::Stage1 { .. } | Self::Medusa { .. } => LossMask::AsStored,
            Self::Stage2 { .. } | Self::TestTime { .. } => LossMask::ShiftedByOne,
        }
    }
}
