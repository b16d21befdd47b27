//! A cell with the measurements of its records.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::record::{
    CellHeader, CellProgress, CellStatus, RUN_FAILURE_FILE, RecordLine, RecordReader, RunFailure,
};
use crate::statistics::Measurements;

/// A cell that was read successfully.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Directory of the cell.
    pub dir: PathBuf,
    /// Header of the cell.
    pub header: CellHeader,
    /// Progress of the cell.
    pub status: CellStatus,
    /// Failed prompts and the reasons, by prompt id.
    pub failed: BTreeMap<String, String>,
    /// Failure of the cell's last process, if it failed.
    pub run_failure: Option<RunFailure>,
    /// Measurements of all records.
    pub measurements: Measurements,
}

impl Cell {
    /// Reads a cell.
    ///
    /// # Errors
    /// Returns an error if the header or the records are missing, damaged or of another version, or
    /// if a prompt occurs more than once.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let run_failure = if dir.join(RUN_FAILURE_FILE).exists() {
            Some(RunFailure::read(dir)?)
        } else {
            None
        };
        let header = CellHeader::read(dir)?;
        let mut reader = RecordReader::open(dir)?;
        let mut progress = CellProgress::default();
        let mut measurements = Measurements::default();
        for line in reader.by_ref() {
            let line = line?;
            progress.add(&line);
            if let RecordLine::Record(record) = &line {
                measurements.add(record);
            }
        }
        progress.expect_unique(reader.path())?;
        Ok(Self {
            dir: dir.to_owned(),
            status: progress.status(header.planned_prompts),
            failed: progress.failed().clone(),
            run_failure,
            header,
            measurements,
        })
    }
}
