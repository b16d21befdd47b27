//! ScienceQA as published by its authors: all problems in one object, and the splits as lists of
//! keys.

use std::path::Path;

use serde_json::Value;

use super::json::{JsonRows, read_string_lists};
use super::{Record, Table};
use crate::error::{Result, RowOrigin};

/// Column that holds the key of a problem.
const KEY_COLUMN: &str = "qid";

/// The problems of one split, in the split's order.
#[derive(Debug)]
pub(super) struct ScienceQaRows {
    keys: Vec<String>,
    problems: JsonRows,
}

impl ScienceQaRows {
    pub(super) fn open(problems: &Path, splits: &Path, split: &str) -> Result<Self> {
        let keys = read_string_lists(splits, split)?;
        let problems = JsonRows::open_keyed(problems, &keys)?;
        Ok(Self { keys, problems })
    }
}

impl Table for ScienceQaRows {
    fn n_rows(&self) -> usize {
        self.problems.n_rows()
    }

    fn origin(&self, row: usize) -> RowOrigin {
        self.problems.origin(row)
    }

    fn record(&mut self, row: usize) -> Result<Record> {
        let mut record = self.problems.record(row)?;
        let key = Value::String(self.keys[row].clone());
        record.fields.insert(KEY_COLUMN.to_owned(), key);
        Ok(record)
    }
}
