//! Tolerated bad rows.

use crate::error::{DataError, Result};

/// The bad rows that were skipped.
#[derive(Debug)]
pub(super) struct BadRows {
    limit: usize,
    found: Vec<DataError>,
}

impl BadRows {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            found: Vec::new(),
        }
    }

    pub(super) fn found(&self) -> &[DataError] {
        &self.found
    }

    /// Records the error if it concerns a single row and the limit is not reached; otherwise
    /// returns it.
    pub(super) fn tolerate(&mut self, error: DataError) -> Result<()> {
        if !error.is_of_one_row() || self.limit == 0 {
            return Err(error);
        }
        if self.found.len() == self.limit {
            return Err(DataError::TooManyBadRows {
                found: self.limit + 1,
                limit: self.limit,
                last: Box::new(error),
            });
        }
        self.found.push(error);
        Ok(())
    }
}
