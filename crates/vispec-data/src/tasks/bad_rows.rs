//! How many bad rows are tolerated, and which were.

use crate::error::{DataError, Result};

/// Rows that were left out.
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

    /// Counts the error if it is of one row and one more may be; otherwise returns it.
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
