//! Writing of a cell's records, such that a killed process loses at most the current prompt.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::line::FailureLine;
use super::{
    CellHeader, CellProgress, FailureRecord, HEADER_FILE, PromptRecord, RECORDS_FILE, RecordReader,
    SCHEMA_VERSION,
};
use crate::error::{ReportError, Result};

/// Number of lines between two calls of `fsync`. A killed process loses no appended line; a power
/// failure loses at most this number of lines.
const SYNC_EVERY: u32 = 16;

/// A cell that is open for writing, and its previous contents.
#[derive(Debug)]
pub struct OpenedCell {
    /// Writer for the next records.
    pub writer: RecordWriter,
    /// Prompts that need no further answer, and failed prompts.
    pub progress: CellProgress,
    /// Number of bytes of an incomplete line that were truncated.
    pub dropped_bytes: u64,
}

/// Returns whether a process is writing the cell in a directory, and `false` if there is no cell.
///
/// # Errors
/// Returns any error of the file system.
pub fn is_being_written(dir: &Path) -> Result<bool> {
    let path = dir.join(RECORDS_FILE);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(ReportError::io(&path, "could not be opened")(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(source)) => {
            Err(ReportError::io(&path, "could not be locked")(source))
        }
    }
}

/// Appends records to a cell. Holds a lock, so that no other process can write the cell.
#[derive(Debug)]
pub struct RecordWriter {
    path: PathBuf,
    file: File,
    unsynced: u32,
}

impl RecordWriter {
    /// Creates the directory of a cell, or resumes an existing cell.
    ///
    /// An existing header stays as it is. Existing records are read, so that the caller knows which
    /// prompts are done, and an incomplete last line is truncated.
    ///
    /// # Errors
    /// Returns [`ReportError::HeaderMismatch`] if the directory holds another cell,
    /// [`ReportError::Locked`] if another process is writing it, and any error from reading the
    /// records.
    pub fn open(dir: &Path, header: &CellHeader) -> Result<OpenedCell> {
        fs::create_dir_all(dir).map_err(ReportError::io(dir, "could not be created"))?;
        let path = dir.join(RECORDS_FILE);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(ReportError::io(&path, "could not be opened"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ReportError::Locked { path }),
            Err(TryLockError::Error(source)) => {
                return Err(ReportError::io(&path, "could not be locked")(source));
            }
        }
        let header_path = dir.join(HEADER_FILE);
        if header_path.exists() {
            CellHeader::read(dir)?.expect_continues(header, &header_path)?;
        } else {
            header.write(dir)?;
        }
        let mut reader = RecordReader::open(dir)?;
        let mut progress = CellProgress::default();
        for line in reader.by_ref() {
            progress.add(&line?);
        }
        progress.expect_unique(&path)?;
        let complete = reader.complete_bytes();
        file.set_len(complete)
            .and_then(|()| file.seek(SeekFrom::Start(complete)))
            .map_err(ReportError::io(&path, "could not be truncated"))?;
        Ok(OpenedCell {
            writer: Self {
                path,
                file,
                unsynced: 0,
            },
            progress,
            dropped_bytes: reader.incomplete_bytes(),
        })
    }

    /// Appends a record.
    ///
    /// # Errors
    /// Returns an error if the record is inconsistent, and any error of the file system.
    pub fn append(&mut self, record: &PromptRecord) -> Result<()> {
        record.validate()?;
        self.append_line(record)
    }

    /// Appends a failure.
    ///
    /// # Errors
    /// Returns any error of the file system.
    pub fn append_failure(&mut self, failure: FailureRecord) -> Result<()> {
        self.append_line(&FailureLine {
            schema_version: SCHEMA_VERSION,
            failure,
        })
    }

    /// Flushes all records to disk.
    ///
    /// # Errors
    /// Returns any error of the file system.
    pub fn sync(&mut self) -> Result<()> {
        self.unsynced = 0;
        self.file
            .sync_data()
            .map_err(ReportError::io(&self.path, "could not be synchronised"))
    }

    /// Appends a line in a single write, so that an interruption leaves at most one partial line.
    fn append_line<T: Serialize>(&mut self, line: &T) -> Result<()> {
        let mut text = serde_json::to_vec(line).map_err(|source| ReportError::Json {
            path: self.path.clone(),
            line: 0,
            expected: "line that JSON can hold",
            source,
        })?;
        text.push(b'\n');
        self.file
            .write_all(&text)
            .map_err(ReportError::io(&self.path, "could not be appended to"))?;
        self.unsynced += 1;
        if self.unsynced >= SYNC_EVERY {
            self.sync()?;
        }
        Ok(())
    }
}
