//! The header of a cell.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json::{expect_version, read_json, write_json};
use super::{CellSettings, CostTable, HEADER_FILE, Machine, SCHEMA_VERSION, Shard};
use crate::error::{ReportError, Result};

/// Header of all records in a cell's directory: the contents of `cell.json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellHeader {
    /// [`SCHEMA_VERSION`] of the program that wrote the directory.
    pub schema_version: u32,
    /// [`CellSettings::cell_id`] of the settings.
    pub cell_id: String,
    /// The chosen settings.
    pub settings: CellSettings,
    /// The shard of the prompts that this directory holds.
    pub shard: Shard,
    /// Number of records that the directory will hold when it is complete: one for each turn of the
    /// shard's samples.
    pub planned_prompts: u64,
    /// Number of learned queries of a draft that sees images, including the global one; absent
    /// otherwise.
    pub num_q: Option<u32>,
    /// SHA-256, in hexadecimal, of the ids and texts of the task's prompts, if computed.
    pub task_sha256: Option<String>,
    /// Version of the program that ran the cell.
    pub program_version: String,
    /// Machine that ran the cell.
    pub machine: Machine,
    /// Time at which the cell was started.
    pub started_at: Timestamp,
    /// Costs of passes on this machine, if measured.
    pub costs: Option<CostTable>,
}

impl CellHeader {
    /// Creates a header for a cell that starts now, on this machine, with all prompts.
    ///
    /// Set the fields that should differ afterwards; all are public.
    #[must_use]
    pub fn new(settings: CellSettings, program_version: &str) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            cell_id: settings.cell_id(),
            shard: Shard::WHOLE,
            planned_prompts: settings.prompts,
            settings,
            num_q: None,
            task_sha256: None,
            program_version: program_version.to_owned(),
            machine: Machine::detect(),
            started_at: Timestamp::now(),
            costs: None,
        }
    }

    /// Reads the header in the directory of a cell.
    ///
    /// # Errors
    /// Returns an error if the file is missing, is not a header, or is of another version.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(HEADER_FILE);
        let header: Self = read_json(&path, "header of a cell")?;
        expect_version(header.schema_version, &path)?;
        let expected = header.settings.cell_id();
        if header.cell_id != expected {
            return Err(ReportError::HeaderMismatch {
                path,
                field: "cell_id".to_owned(),
                found: header.cell_id,
                expected,
            });
        }
        Ok(header)
    }

    /// Writes the header into the directory of a cell. It is written under a temporary name first,
    /// so that there is never a partial header.
    ///
    /// # Errors
    /// Returns any error of the file system.
    pub fn write(&self, dir: &Path) -> Result<()> {
        write_json(&dir.join(HEADER_FILE), self)
    }

    /// Checks that a run that would write `expected` may resume the records of `self`, which was
    /// read from `path`. All fields must be equal, except start time, costs and memory.
    ///
    /// # Errors
    /// [`ReportError::HeaderMismatch`] with the first field that differs.
    pub(crate) fn expect_continues(&self, expected: &Self, path: &Path) -> Result<()> {
        self.expect_equal(
            expected,
            path,
            // The id follows from the settings, whose differences are more informative.
            &["cell_id", "started_at", "costs", "machine.memory_bytes"],
        )
    }

    /// Like [`expect_continues`](Self::expect_continues), but for two shards of a cell: shard index
    /// and number of planned prompts may differ, too.
    ///
    /// # Errors
    /// [`ReportError::HeaderMismatch`] with the first field that differs.
    pub(crate) fn expect_same_cell(&self, expected: &Self, path: &Path) -> Result<()> {
        self.expect_equal(
            expected,
            path,
            &[
                "cell_id",
                "started_at",
                "costs",
                "machine.memory_bytes",
                "shard.index",
                "planned_prompts",
            ],
        )
    }

    fn expect_equal(&self, expected: &Self, path: &Path, ignored: &[&str]) -> Result<()> {
        let json = |header| serde_json::to_value(header).unwrap_or(Value::Null);
        match first_difference("", &json(self), &json(expected), ignored) {
            None => Ok(()),
            Some((field, found, expected)) => Err(ReportError::HeaderMismatch {
                path: path.to_owned(),
                field,
                found,
                expected,
            }),
        }
    }
}

/// Returns the name and both values of the first field that differs.
fn first_difference(
    name: &str,
    found: &Value,
    expected: &Value,
    ignored: &[&str],
) -> Option<(String, String, String)> {
    if found == expected || ignored.contains(&name) {
        return None;
    }
    if let (Value::Object(found), Value::Object(expected)) = (found, expected) {
        return found.iter().find_map(|(key, found)| {
            let name = if name.is_empty() {
                key.clone()
            } else {
                format!("{name}.{key}")
            };
            first_difference(
                &name,
                found,
                expected.get(key).unwrap_or(&Value::Null),
                ignored,
            )
        });
    }
    Some((name.to_owned(), found.to_string(), expected.to_string()))
}
