//! What passes cost on one machine, by their number of rows.

/// Measured time of a pass over so many rows.
#[derive(Clone, Copy, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Cost {
    /// Rows of the pass: tree nodes or beam rows.
    pub rows: usize,
    /// Seconds.
    pub seconds: f64,
}

/// Measured times of a neural draft.
#[derive(Clone, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct DraftCosts {
    /// Seconds to take in the tokens of a cycle and to score the first level.
    pub commit: f64,
    /// One more level, by rows of the beam.
    pub expand: Vec<Cost>,
}

/// Why measured times are not usable.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CostError {
    /// There is no time for a verify pass over the root alone.
    #[error("the cost table has no verify pass of 1 node")]
    NoSinglePass,
    /// Rows are not ascending.
    #[error("the cost table has {found} rows after {before}, expected more")]
    NotAscending {
        /// Rows of the entry before.
        before: usize,
        /// Rows of the entry.
        found: usize,
    },
    /// A time is not a positive number.
    #[error("the cost table has {seconds} seconds for {rows} rows, expected a positive number")]
    NotPositive {
        /// Rows of the entry.
        rows: usize,
        /// The time.
        seconds: f64,
    },
}

/// Times of the passes of one target and, if there is one, its draft.
#[derive(Clone, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct CostTable {
    verify: Vec<Cost>,
    draft: Option<DraftCosts>,
}

impl CostTable {
    /// A table of measured times.
    ///
    /// # Errors
    /// [`CostError`] if `verify` does not start with one row, rows do not ascend, or a time is not a
    /// positive number.
    pub fn new(verify: Vec<Cost>, draft: Option<DraftCosts>) -> Result<Self, CostError> {
        if verify.first().is_none_or(|first| first.rows != 1) {
            return Err(CostError::NoSinglePass);
        }
        check(&verify)?;
        if let Some(draft) = &draft {
            check(&draft.expand)?;
            let commit = Cost {
                rows: 1,
                seconds: draft.commit,
            };
            check(&[commit])?;
        }
        Ok(Self { verify, draft })
    }

    /// Measured verify passes, ascending.
    #[must_use]
    pub fn verify_costs(&self) -> &[Cost] {
        &self.verify
    }

    /// Measured times of the draft.
    #[must_use]
    pub fn draft_costs(&self) -> Option<&DraftCosts> {
        self.draft.as_ref()
    }

    /// Seconds of a verify pass over `nodes` nodes, the root included.
    #[must_use]
    pub fn verify(&self, nodes: usize) -> f64 {
        interpolate(&self.verify, nodes)
    }

    /// Seconds of one more level of the draft with a beam of `rows`; 0 without a neural draft.
    #[must_use]
    pub fn expand(&self, rows: usize) -> f64 {
        self.draft
            .as_ref()
            .map_or(0.0, |draft| interpolate(&draft.expand, rows))
    }

    /// Seconds of the draft's first level; 0 without a neural draft.
    #[must_use]
    pub fn commit(&self) -> f64 {
        self.draft.as_ref().map_or(0.0, |draft| draft.commit)
    }
}

fn check(costs: &[Cost]) -> Result<(), CostError> {
    let mut before = 0;
    for &Cost { rows, seconds } in costs {
        if rows <= before {
            return Err(CostError::NotAscending {
                before,
                found: rows,
            });
        }
        if !(seconds > 0.0 && seconds.is_finite()) {
            return Err(CostError::NotPositive { rows, seconds });
        }
        before = rows;
    }
    Ok(())
}

/// Linear between the entries; behind the last one, time is in proportion to rows.
fn interpolate(costs: &[Cost], rows: usize) -> f64 {
    let after = costs.partition_point(|cost| cost.rows < rows);
    match (after.checked_sub(1).map(|i| costs[i]), costs.get(after)) {
        (_, Some(cost)) if cost.rows == rows => cost.seconds,
        (Some(low), Some(high)) => {
            let share = (rows - low.rows) as f64 / (high.rows - low.rows) as f64;
            low.seconds + share * (high.seconds - low.seconds)
        }
        (None, Some(first)) => first.seconds,
        (Some(last), None) => last.seconds * rows as f64 / last.rows as f64,
        (None, None) => 0.0,
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "the numbers are exact in binary")]
mod tests {
    use super::*;

    fn cost(rows: usize, seconds: f64) -> Cost {
        Cost { rows, seconds }
    }

    #[test]
    fn interpolates_and_extrapolates() {
        let draft = DraftCosts {
            commit: 0.5,
            expand: vec![cost(2, 1.0)],
        };
        let table = CostTable::new(vec![cost(1, 4.0), cost(4, 4.0), cost(8, 6.0)], Some(draft));
        let table = table.unwrap();
        let times: Vec<f64> = [1, 2, 4, 6, 8, 16].map(|n| table.verify(n)).to_vec();
        assert_eq!(times, [4.0, 4.0, 4.0, 5.0, 6.0, 12.0]);
        assert_eq!(
            [table.expand(1), table.expand(4), table.commit()],
            [1.0, 2.0, 0.5]
        );
        let plain = CostTable::new(vec![cost(1, 4.0)], None).unwrap();
        assert_eq!([plain.expand(3), plain.commit()], [0.0, 0.0]);
    }

    #[test]
    fn refuses_nonsense() {
        assert_eq!(CostTable::new(vec![], None), Err(CostError::NoSinglePass));
        assert_eq!(
            CostTable::new(vec![cost(2, 1.0)], None),
            Err(CostError::NoSinglePass)
        );
        let twice = CostTable::new(vec![cost(1, 1.0), cost(1, 1.0)], None);
        assert_eq!(
            twice,
            Err(CostError::NotAscending {
                before: 1,
                found: 1
            })
        );
        for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(
                CostTable::new(vec![cost(1, seconds)], None),
                Err(CostError::NotPositive { rows: 1, .. })
            ));
        }
    }
}
