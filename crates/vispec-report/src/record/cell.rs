//! The header of a cell.

use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json::{expect_version, read_json, write_json};
use super::{CellSettings, CostTable, HEADER_FILE, Machine, SCHEMA_VERSION, Shard};
use crate::error::{ReportError, Result};

/// What holds for all records of a cell's directory: the contents of `cell.json`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CellHeader {
    /// [`SCHEMA_VERSION`] of the program that wrote the directory.
    pub schema_version: u32,
    /// [`CellSettings::cell_id`] of the settings.
    pub cell_id: String,
    /// What was asked for.
    pub settings: CellSettings,
    /// Which of the prompts this directory holds.
    pub shard: Shard,
    /// Records that the directory will hold when it is complete: one for each turn of the shard's
    /// samples.
    pub planned_prompts: u64,
    /// Learned queries of a draft that sees images, the global one included; absent otherwise.
    pub num_q: Option<u32>,
    /// SHA-256 in hexadecimal of ids and texts of the task's prompts, if it was computed.
    pub task_sha256: Option<String>,
    /// Version of the program that measured.
    pub program_version: String,
    /// Where it measured.
    pub machine: Machine,
    /// When the first record was begun.
    pub started_at: Timestamp,
    /// What passes cost on this machine, if that was measured.
    pub costs: Option<CostTable>,
}

impl CellHeader {
    /// A header for a cell that starts now, on this machine, with the whole of the prompts.
    ///
    /// Fields that differ are to be set afterwards; all are public.
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
    /// A file that is absent, not a header, or of another version.
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

    /// Writes the header into the directory of a cell, under a temporary name first, so that there
    /// is never half a header.
    ///
    /// # Errors
    /// Any of the file system.
    pub fn write(&self, dir: &Path) -> Result<()> {
        write_json(&dir.join(HEADER_FILE), self)
    }

    /// Checks that records of `self`, which was found at `path`, may be continued by a run that
    /// would write `expected`: all but start, costs and memory must be the same.
    ///
    /// # Errors
    /// [`ReportError::HeaderMismatch`] with the first field that differs.
    pub(crate) fn expect_continues(&self, expected: &Self, path: &Path) -> Result<()> {
        self.expect_equal(
            expected,
            path,
            // The id follows from the settings, which say more.
            &["cell_id", "started_at", "costs", "machine.memory_bytes"],
        )
    }

    /// As [`expect_continues`](Self::expect_continues), for two shards of a cell.
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

/// Name and both values of the first field that differs.
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
