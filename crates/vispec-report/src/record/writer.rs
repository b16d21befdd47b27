//! Writing the records of a cell so that a killed process loses at most the prompt it was at.

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

/// Lines between two calls of `fsync`: a killed process loses no line it has appended, a machine that
/// loses power at most these.
const SYNC_EVERY: u32 = 16;

/// A cell that is ready for records, and what it held before.
#[derive(Debug)]
pub struct OpenedCell {
    /// Takes the next records.
    pub writer: RecordWriter,
    /// Prompts that need not be answered again, and those that failed.
    pub progress: CellProgress,
    /// Bytes of an incomplete line that were cut off.
    pub dropped_bytes: u64,
}

/// Whether a process is writing the cell in a directory. One that is not there is not written.
///
/// # Errors
/// Any of the file system.
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

/// Appends records to a cell. While it lives, no other process can write the cell.
#[derive(Debug)]
pub struct RecordWriter {
    path: PathBuf,
    file: File,
    unsynced: u32,
}

impl RecordWriter {
    /// Creates the directory of a cell, or continues what is there.
    ///
    /// A header that is there stays as it is; records after it are read, so that the caller knows
    /// which prompts are done, and an incomplete last line is cut off.
    ///
    /// # Errors
    /// [`ReportError::HeaderMismatch`] if the directory holds another cell,
    /// [`ReportError::Locked`] if another process writes it, and any error of reading records.
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
            .map_err(ReportError::io(&path, "could not be cut"))?;
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
    /// A record that contradicts itself, and any error of the file system.
    pub fn append(&mut self, record: &PromptRecord) -> Result<()> {
        record.validate()?;
        self.append_line(record)
    }

    /// Appends a failure.
    ///
    /// # Errors
    /// Any of the file system.
    pub fn append_failure(&mut self, failure: FailureRecord) -> Result<()> {
        self.append_line(&FailureLine {
            schema_version: SCHEMA_VERSION,
            failure,
        })
    }

    /// Forces everything to the disk.
    ///
    /// # Errors
    /// Any of the file system.
    pub fn sync(&mut self) -> Result<()> {
        self.unsynced = 0;
        self.file
            .sync_data()
            .map_err(ReportError::io(&self.path, "could not be synchronised"))
    }

    /// One write for the whole line, so that a line is there or is cut at one place.
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
