//! Measured cost of the two passes that a cycle is made of.

use serde::{Deserialize, Serialize};

/// Time of one pass with a number of rows.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostPoint {
    /// Rows of the pass: nodes of the tree, or tokens the draft reads.
    pub rows: u32,
    /// Median time in milliseconds.
    pub ms: f64,
}

/// What passes of target and draft cost on the machine of a cell.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostTable {
    /// Tokens in the caches while the passes were timed.
    pub context_tokens: u32,
    /// One step of the draft network (one level of a tree) by rows, ascending.
    pub draft_step: Vec<CostPoint>,
    /// One verify pass of the target by nodes, root included, ascending; 1 is plain decoding.
    pub verify: Vec<CostPoint>,
}

impl CostTable {
    /// Time of a step of the draft with `rows` rows, in milliseconds: straight lines between
    /// the points, the first value below them, absent above them.
    #[must_use]
    pub(crate) fn draft_step_ms(&self, rows: f64) -> Option<f64> {
        interpolate(&self.draft_step, rows)
    }

    /// Time of a verify pass over `nodes` nodes, in milliseconds: straight lines between
    /// the points, the first value below them, absent above them.
    #[must_use]
    pub(crate) fn verify_ms(&self, nodes: f64) -> Option<f64> {
        interpolate(&self.verify, nodes)
    }
}

/// Straight lines between the points, the first value below them, and nothing above them: how a
/// pass scales beyond what was measured is not known.
fn interpolate(points: &[CostPoint], rows: f64) -> Option<f64> {
    let first = points.first()?;
    if rows <= f64::from(first.rows) {
        return Some(first.ms);
    }
    points.windows(2).find_map(|pair| {
        let (from, to) = (f64::from(pair[0].rows), f64::from(pair[1].rows));
        (rows <= to && from < to)
            .then(|| pair[0].ms + (pair[1].ms - pair[0].ms) * (rows - from) / (to - from))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_interpolated_and_never_extrapolated_upwards() {
        let points = [(1, 10.0), (2, 11.0), (4, 15.0)].map(|(rows, ms)| CostPoint { rows, ms });
        for (rows, expected) in [
            (0.5, Some(10.0)),
            (1.0, Some(10.0)),
            (1.5, Some(10.5)),
            (3.0, Some(13.0)),
            (4.0, Some(15.0)),
            (4.1, None),
        ] {
            assert_eq!(interpolate(&points, rows), expected, "{rows}");
        }
        assert_eq!(interpolate(&[], 1.0), None);
    }
}
