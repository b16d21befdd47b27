//! Measured cost of the two passes that make up a cycle.

use serde::{Deserialize, Serialize};

/// Time of one pass with a given number of rows.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostPoint {
    /// Number of rows of the pass: nodes of the tree, or tokens that the draft reads.
    pub rows: u32,
    /// Median time in milliseconds.
    pub ms: f64,
}

/// Costs of target and draft passes on the machine of a cell.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostTable {
    /// Number of tokens in the caches while the passes were timed.
    pub context_tokens: u32,
    /// One step of the draft network (one level of a tree), by ascending number of rows.
    pub draft_step: Vec<CostPoint>,
    /// One verify pass of the target, by ascending number of nodes, including the root; 1 is plain
    /// decoding.
    pub verify: Vec<CostPoint>,
}

impl CostTable {
    /// Returns the time of a draft step with `rows` rows, in milliseconds: interpolated between the
    /// points, the first value below them, and `None` above them.
    pub(crate) fn draft_step_ms(&self, rows: f64) -> Option<f64> {
        interpolate(&self.draft_step, rows)
    }

    /// Returns the time of a verify pass over `nodes` nodes, in milliseconds: interpolated between
    /// the points, the first value below them, and `None` above them.
    pub(crate) fn verify_ms(&self, nodes: f64) -> Option<f64> {
        interpolate(&self.verify, nodes)
    }
}

/// Interpolates linearly between the points. Returns the first value below the points, and `None`
/// above them, because the scaling of a pass beyond the measured sizes is unknown.
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
