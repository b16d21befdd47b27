//! The file that a sweep writes into the directory of a cell whose process failed.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::json::{expect_version, read_json, write_json};
use super::{RUN_FAILURE_FILE, SCHEMA_VERSION};
use crate::error::Result;

/// Failure of a process that did not complete its cell: the contents of `failure.json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunFailure {
    /// [`SCHEMA_VERSION`] of the program that wrote the file.
    pub schema_version: u32,
    /// Exit code of the process; absent if a signal ended it or it could not be started.
    pub exit_code: Option<i32>,
    /// The last lines of its standard error.
    pub stderr_tail: Vec<String>,
}

impl RunFailure {
    /// Creates a failure with the current schema version.
    #[must_use]
    pub fn new(exit_code: Option<i32>, stderr_tail: Vec<String>) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            exit_code,
            stderr_tail,
        }
    }

    /// Reads the failure in the directory of a cell.
    ///
    /// # Errors
    /// Returns an error if the file is missing, is not a failure, or is of another version.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(RUN_FAILURE_FILE);
        let failure: Self = read_json(&path, "failure of a cell")?;
        expect_version(failure.schema_version, &path)?;
        Ok(failure)
    }

    /// Writes the failure into the directory of a cell.
    ///
    /// # Errors
    /// Returns any error of the file system.
    pub fn write(&self, dir: &Path) -> Result<()> {
        write_json(&dir.join(RUN_FAILURE_FILE), self)
    }
}
