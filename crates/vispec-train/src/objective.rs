//! What is minimised, with upstream's weights as defaults.

use serde::{Deserialize, Serialize};

use crate::data::LossMask;

/// Which hidden state a Medusa head learns to predict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MedusaTargets {
    /// Head `i` learns the state `i + 1` tokens ahead.
    Shifted,
    /// All heads learn the next state, and head `i` zeros at the first `i` positions: what
    /// upstream's training does, by mistake.
    Upstream,
}

/// What is minimised.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Objective {
    /// `value_weight * V + probability_weight * (CE + ranking_weight * R)` of one pass, where `V` is
    /// the smooth L1 distance of hidden states, `CE` the cross entropy and `R` the ranking loss.
    Stage1 {
        /// Weight of `V`; upstream's is 1.
        value_weight: f64,
        /// Weight of what is compared through the head; upstream's is 0.1.
        probability_weight: f64,
        /// Weight of `R` within; upstream's is 0.1.
        ranking_weight: f64,
    },
    /// `probability_weight * L1 + ranking_weight * R` over `1 + unrolled_passes` passes, where `L1`
    /// is the distance of distributions.
    Stage2 {
        /// Passes that read the draft's own output; upstream recommends 1.
        unrolled_passes: usize,
        /// Weight of the distance; upstream's is 10.
        probability_weight: f64,
        /// Weight of `R`; upstream's is 0.1.
        ranking_weight: f64,
    },
    /// The sum over `passes` of `decay^k * CE`, where the `k`-th pass goes on from the output of the
    /// one before it as drafting does: EAGLE-3.
    TestTime {
        /// Passes, the first one included; EAGLE-3 has 7.
        passes: usize,
        /// Weight of each pass relative to the one before it; EAGLE-3 has 0.8.
        decay: f64,
    },
    /// `value_weight * V + probability_weight * CE`, the mean over heads.
    Medusa {
        /// What each head learns.
        targets: MedusaTargets,
        /// Weight of `V`; upstream's is 1.
        value_weight: f64,
        /// Weight of `CE`; upstream's is 0.1.
        probability_weight: f64,
    },
}

impl Objective {
    /// How loss masks are read.
    #[must_use]
    pub fn loss_mask(&self) -> LossMask {
        match self {
            Self::Stage1 { .. } | Self::Medusa { .. } => LossMask::AsStored,
            Self::Stage2 { .. } | Self::TestTime { .. } => LossMask::ShiftedByOne,
        }
    }
}
