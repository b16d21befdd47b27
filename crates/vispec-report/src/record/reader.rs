//! Reading the records of a cell, one line at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use super::json::{expect_version, parse};
use super::line::FailureLine;
use super::{CellHeader, FailureRecord, PromptRecord, RECORDS_FILE, RecordLine};
use crate::error::{ReportError, Result};

/// Start of a line that is not a record.
const FAILURE_START: &[u8] = b"{\"schema_version\":";
const FAILURE_KEY: &[u8] = b"\"failure\":";
const LINE_BUFFER: usize = 1 << 18;

/// Iterator over the complete lines of a cell, in file order.
///
/// Only one line is in memory at a time. An incomplete line at the end is skipped and counted in
/// `incomplete_bytes`.
#[derive(Debug)]
pub struct RecordReader {
    path: PathBuf,
    input: BufReader<File>,
    buffer: Vec<u8>,
    line: u64,
    complete_bytes: u64,
    incomplete_bytes: u64,
}

impl RecordReader {
    /// Opens the records in the directory of a cell.
    ///
    /// # Errors
    /// Returns any error of the file system.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(RECORDS_FILE);
        let file = File::open(&path).map_err(ReportError::io(&path, "could not be opened"))?;
        Ok(Self {
            input: BufReader::with_capacity(LINE_BUFFER, file),
            path,
            buffer: Vec::new(),
            line: 0,
            complete_bytes: 0,
            incomplete_bytes: 0,
        })
    }

    /// Returns the path of the records.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the number of bytes of the complete lines read so far.
    pub(crate) fn complete_bytes(&self) -> u64 {
        self.complete_bytes
    }

    /// Returns the number of bytes after the last newline; known after the last line was read.
    pub(crate) fn incomplete_bytes(&self) -> u64 {
        self.incomplete_bytes
    }

    /// Reads up to and including the next newline. Returns `false` at the end.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.clear();
        let read = self.input.read_until(b'\n', &mut self.buffer)? as u64;
        if self.buffer.last() != Some(&b'\n') {
            self.incomplete_bytes = read;
            return Ok(false);
        }
        self.line += 1;
        self.complete_bytes += read;
        Ok(true)
    }

    fn parse(&self) -> Result<RecordLine> {
        if is_failure(&self.buffer) {
            let line: FailureLine =
                parse(&self.buffer, &self.path, self.line, "failure of a prompt")?;
            expect_version(line.schema_version, &self.path)?;
            return Ok(RecordLine::Failure(line.failure));
        }
        let record: Box<PromptRecord> =
            parse(&self.buffer, &self.path, self.line, "record of a prompt")?;
        expect_version(record.schema_version, &self.path)?;
        record.validate().map_err(|error| self.place(error))?;
        Ok(RecordLine::Record(record))
    }

    /// Adds path and line number to an error about a record.
    fn place(&self, mut error: ReportError) -> ReportError {
        if let ReportError::Record { path, line, .. } = &mut error {
            path.clone_from(&self.path);
            *line = self.line;
        }
        error
    }
}

/// Returns whether the second key of a line is `failure`. This is faster than parsing the line
/// twice, which matters because most lines are records.
fn is_failure(line: &[u8]) -> bool {
    line.strip_prefix(FAILURE_START)
        .and_then(|rest| rest.splitn(2, |&byte| byte == b',').nth(1))
        .is_some_and(|rest| rest.starts_with(FAILURE_KEY))
}

impl Iterator for RecordReader {
    type Item = Result<RecordLine>;

    fn next(&mut self) -> Option<Self::Item> {
        match self.fill() {
            Ok(true) => Some(self.parse()),
            Ok(false) => None,
            Err(source) => Some(Err(ReportError::io(&self.path, "could not be read")(
                source,
            ))),
        }
    }
}

/// Progress of a cell. Holds only the ids of all prompts, and the messages of failures.
#[derive(Debug, Clone, Default)]
pub struct CellProgress {
    done: BTreeSet<String>,
    failed: BTreeMap<String, String>,
    duplicates: BTreeSet<String>,
}

impl CellProgress {
    /// Updates the progress with a line.
    pub fn add(&mut self, line: &RecordLine) {
        match line {
            RecordLine::Record(record) => {
                self.failed.remove(&record.prompt_id);
                if !self.done.insert(record.prompt_id.clone()) {
                    self.duplicates.insert(record.prompt_id.clone());
                }
            }
            RecordLine::Failure(FailureRecord { prompt_id, message }) => {
                if !self.done.contains(prompt_id) {
                    self.failed.insert(prompt_id.clone(), message.clone());
                }
            }
        }
    }

    /// Checks that no prompt has more than one record.
    ///
    /// # Errors
    /// Returns [`ReportError::DuplicatePrompts`] with the ids of the prompts that do.
    pub fn expect_unique(&self, path: &Path) -> Result<()> {
        if self.duplicates.is_empty() {
            return Ok(());
        }
        Err(ReportError::DuplicatePrompts {
            path: path.to_owned(),
            prompt_ids: self.duplicates.iter().cloned().collect(),
        })
    }

    /// Returns the prompts that have a record.
    #[must_use]
    pub fn done(&self) -> &BTreeSet<String> {
        &self.done
    }

    /// Returns the prompts that failed and have no record, with the error messages.
    pub(crate) fn failed(&self) -> &BTreeMap<String, String> {
        &self.failed
    }

    /// Returns the status of the cell, given its planned number of records.
    #[must_use]
    pub fn status(&self, planned: u64) -> CellStatus {
        let (done, failed) = (self.done.len() as u64, self.failed.len() as u64);
        if done >= planned {
            CellStatus::Complete
        } else {
            CellStatus::Incomplete {
                done,
                failed,
                planned,
            }
        }
    }
}

/// Status of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CellStatus {
    /// Every planned prompt has a record.
    Complete,
    /// Some prompts have no record.
    Incomplete {
        /// Number of prompts with a record.
        done: u64,
        /// Number of failed prompts.
        failed: u64,
        /// Number of prompts that should have a record.
        planned: u64,
    },
}

impl CellStatus {
    /// Reads the status of the cell in a directory.
    ///
    /// # Errors
    /// Returns an error if files are missing or cannot be read.
    pub fn of(dir: &Path) -> Result<Self> {
        let header = CellHeader::read(dir)?;
        let mut progress = CellProgress::default();
        let mut reader = RecordReader::open(dir)?;
        for line in reader.by_ref() {
            progress.add(&line?);
        }
        progress.expect_unique(reader.path())?;
        Ok(progress.status(header.planned_prompts))
    }
}
