//! Times of passes on one machine, by number of rows.

/// Measured time of a pass over a number of rows.
#[derive(Clone, Copy, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Cost {
    /// Rows of the pass: tree nodes or beam rows.
    pub rows: usize,
    /// Seconds.
    pub seconds: f64,
}

/// Time that tokens in the cache add to a pass.
#[derive(Clone, Copy, Default, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ContextCost {
    /// Number of tokens in the cache while verify passes were measured.
    pub tokens: usize,
    /// Seconds that each of them adds to a pass over only the root.
    pub per_token: f64,
}

/// Measured times of a target.
#[derive(Clone, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct TargetCosts {
    /// Seconds per token of a prompt.
    pub prefill: f64,
    /// Verify passes by number of nodes, ascending from 1.
    pub verify: Vec<Cost>,
    /// Time that a longer context adds to verify passes.
    pub context: ContextCost,
}

/// Measured times of a neural draft.
#[derive(Clone, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct DraftCosts {
    /// Seconds per token that the draft reads without scoring: tokens of the prompt and of cycles
    /// without a draft.
    pub read: f64,
    /// Seconds to read the tokens of a cycle and to score the first level.
    pub commit: f64,
    /// Times of one more level, by number of beam rows.
    pub expand: Vec<Cost>,
}

/// Error of unusable measured times.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CostError {
    /// The time of a verify pass over only the root is missing.
    #[error("the cost table has no verify pass of 1 node")]
    NoSinglePass,
    /// Rows are not ascending.
    #[error("the cost table has {found} rows after {before}, expected more")]
    NotAscending {
        /// Rows of the previous entry.
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

/// Times of the passes of one target and of its draft, if there is one.
#[derive(Clone, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct CostTable {
    target: TargetCosts,
    draft: Option<DraftCosts>,
}

impl CostTable {
    /// Creates a table of measured times.
    ///
    /// # Errors
    /// [`CostError`] if verify passes do not start with one row, rows do not ascend, or a time is
    /// not a positive number (times per token may be 0).
    pub fn new(target: TargetCosts, draft: Option<DraftCosts>) -> Result<Self, CostError> {
        if target.verify.first().is_none_or(|first| first.rows != 1) {
            return Err(CostError::NoSinglePass);
        }
        check(&target.verify)?;
        check_token(target.prefill)?;
        check_token(target.context.per_token)?;
        if let Some(draft) = &draft {
            check(&draft.expand)?;
            check_token(draft.read)?;
            let commit = Cost {
                rows: 1,
                seconds: draft.commit,
            };
            check(&[commit])?;
        }
        Ok(Self { target, draft })
    }

    /// Returns the measured times of the target.
    #[must_use]
    pub fn target_costs(&self) -> &TargetCosts {
        &self.target
    }

    /// Returns the measured verify passes, ascending.
    #[must_use]
    pub fn verify_costs(&self) -> &[Cost] {
        &self.target.verify
    }

    /// Returns the measured times of the draft.
    #[must_use]
    pub fn draft_costs(&self) -> Option<&DraftCosts> {
        self.draft.as_ref()
    }

    /// Returns the seconds of a verify pass over `nodes` nodes, the root included.
    #[must_use]
    pub fn verify(&self, nodes: usize) -> f64 {
        interpolate(&self.target.verify, nodes)
    }

    /// Returns the seconds of a verify pass with `context` tokens in the cache.
    /// [`verify`](Self::verify) uses the number of tokens at the time of measurement.
    #[must_use]
    pub fn verify_at(&self, nodes: usize, context: usize) -> f64 {
        let ContextCost { tokens, per_token } = self.target.context;
        let more = (context as f64 - tokens as f64) * per_token;
        (self.verify(nodes) + more).max(0.0)
    }

    /// Returns the seconds that the target takes to read a prompt of `tokens`.
    #[must_use]
    pub fn prefill(&self, tokens: usize) -> f64 {
        self.target.prefill * tokens as f64
    }

    /// Returns the seconds that the draft takes to read `tokens` without scoring them; 0 without a
    /// neural draft.
    #[must_use]
    pub fn read(&self, tokens: usize) -> f64 {
        let draft = self.draft.as_ref();
        draft.map_or(0.0, |draft| draft.read * tokens as f64)
    }

    /// Returns the seconds of one more level of the draft with a beam of `rows`; 0 without a neural
    /// draft.
    #[must_use]
    pub fn expand(&self, rows: usize) -> f64 {
        self.draft
            .as_ref()
            .map_or(0.0, |draft| interpolate(&draft.expand, rows))
    }

    /// Returns the seconds of the draft's first level; 0 without a neural draft.
    #[must_use]
    pub fn commit(&self) -> f64 {
        self.draft.as_ref().map_or(0.0, |draft| draft.commit)
    }
}

fn check_token(seconds: f64) -> Result<(), CostError> {
    if seconds >= 0.0 && seconds.is_finite() {
        return Ok(());
    }
    Err(CostError::NotPositive { rows: 1, seconds })
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

/// Interpolates linearly between the entries; after the last one, time is proportional to rows.
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

    fn table(verify: &[Cost], draft: Option<DraftCosts>) -> Result<CostTable, CostError> {
        let target = TargetCosts {
            prefill: 0.5,
            verify: verify.to_vec(),
            context: ContextCost {
                tokens: 4,
                per_token: 0.25,
            },
        };
        CostTable::new(target, draft)
    }

    #[test]
    fn interpolates_and_extrapolates() {
        let draft = DraftCosts {
            read: 0.25,
            commit: 0.5,
            expand: vec![cost(2, 1.0)],
        };
        let costs = table(&[cost(1, 4.0), cost(4, 4.0), cost(8, 6.0)], Some(draft)).unwrap();
        let times: Vec<f64> = [1, 2, 4, 6, 8, 16].map(|n| costs.verify(n)).to_vec();
        assert_eq!(times, [4.0, 4.0, 4.0, 5.0, 6.0, 12.0]);
        assert_eq!(
            [costs.expand(1), costs.expand(4), costs.commit()],
            [1.0, 2.0, 0.5]
        );
        assert_eq!([0, 4, 12].map(|n| costs.verify_at(8, n)), [5.0, 6.0, 8.0]);
        assert_eq!([costs.prefill(3), costs.read(4)], [1.5, 1.0]);
        let plain = table(&[cost(1, 4.0)], None).unwrap();
        assert_eq!([plain.expand(3), plain.commit(), plain.read(9)], [0.0; 3]);
    }

    #[test]
    fn refuses_nonsense() {
        assert_eq!(table(&[], None), Err(CostError::NoSinglePass));
        assert_eq!(table(&[cost(2, 1.0)], None), Err(CostError::NoSinglePass));
        let twice = table(&[cost(1, 1.0), cost(1, 1.0)], None);
        assert_eq!(
            twice,
            Err(CostError::NotAscending {
                before: 1,
                found: 1
            })
        );
        for seconds in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(
                table(&[cost(1, seconds)], None),
                Err(CostError::NotPositive { rows: 1, .. })
            ));
        }
        let read = DraftCosts {
            read: -1.0,
            commit: 1.0,
            expand: vec![cost(1, 1.0)],
        };
        assert!(table(&[cost(1, 1.0)], Some(read)).is_err());
    }
}
