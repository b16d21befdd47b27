//! Measured costs in the form of records.

use vispec_report::record::{CostPoint, CostTable};

/// Number of tokens in the caches during the measurement.
const CONTEXT_TOKENS: u32 = vispec_models::CALIBRATION_CONTEXT as u32;

/// Converts the table for the header of a cell, from seconds to milliseconds.
pub(super) fn recorded(costs: &vispec_core::CostTable) -> CostTable {
    let points = |costs: &[vispec_core::Cost]| {
        costs
            .iter()
            .map(|cost| CostPoint {
                rows: u32::try_from(cost.rows).unwrap_or(u32::MAX),
                ms: cost.seconds * 1e3,
            })
            .collect()
    };
    CostTable {
        context_tokens: CONTEXT_TOKENS,
        draft_step: costs
            .draft_costs()
            .map_or_else(Vec::new, |draft| points(&draft.expand)),
        verify: points(costs.verify_costs()),
    }
}
