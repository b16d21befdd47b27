//! What can be wrong with records and with what is made of them.

use std::io;
use std::path::{Path, PathBuf};

/// Result of this crate.
pub type Result<T, E = ReportError> = std::result::Result<T, E>;

/// Why records could not be written, read or reported on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A file or directory could not be read or written.
    #[error("{}: {what}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A header, or a line of records, is not what this program writes.
    #[error("{}:{line}: not a {expected}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line in the file, counted from 1.
        line: u64,
        /// What the text should have been.
        expected: &'static str,
        /// Where and why it is not.
        #[source]
        source: serde_json::Error,
    },
    /// A file was written by another version of this program.
    #[error("{}: schema version {found}, expected {expected}", path.display())]
    SchemaVersion {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u32,
        /// The version this program reads and writes.
        expected: u32,
    },
    /// Two headers that should describe the same cell differ.
    #[error("{}: {field} is {found}, expected {expected}", path.display())]
    HeaderMismatch {
        /// The header that was found.
        path: PathBuf,
        /// The first field that differs, as a path of JSON keys.
        field: String,
        /// Its value in the file, as JSON.
        found: String,
        /// The value it should have, as JSON.
        expected: String,
    },
    /// Prompts occur more than once in a cell.
    #[error("{}: prompts that occur more than once: {}", path.display(), prompt_ids.join(", "))]
    DuplicatePrompts {
        /// The records.
        path: PathBuf,
        /// The ids of these prompts.
        prompt_ids: Vec<String>,
    },
    /// A record contradicts itself.
    #[error("{}:{line}: prompt {prompt_id}: {field} is {found}, expected {expected}", path.display())]
    Record {
        /// The records; empty for a record that was not written yet.
        path: PathBuf,
        /// Line in the file, counted from 1; 0 for a record that was not written yet.
        line: u64,
        /// The prompt.
        prompt_id: String,
        /// The field at fault.
        field: &'static str,
        /// Its value.
        found: String,
        /// What it should be.
        expected: String,
    },
    /// Another process writes this cell.
    #[error("{}: another process is writing this cell", path.display())]
    Locked {
        /// The records.
        path: PathBuf,
    },
    /// Shards do not make a whole cell.
    #[error("shards of cell {cell_id}: {problem}")]
    Shards {
        /// The cell.
        cell_id: String,
        /// What is wrong with them.
        problem: String,
    },
    /// A text is not a value of the kind that is expected.
    #[error("{found:?} is not {expected}")]
    Parse {
        /// The text.
        found: String,
        /// What is accepted.
        expected: &'static str,
    },
    /// There is no cell to report on.
    #[error("{}: no readable cell; {problems} cells could not be read", path.display())]
    NoCells {
        /// The directory that was searched.
        path: PathBuf,
        /// Number of cells that were found and could not be read.
        problems: usize,
    },
    /// A drawing could not be turned into pixels.
    #[error("the drawing {name:?} could not be turned into pixels: {problem}")]
    Raster {
        /// Name of the drawing.
        name: String,
        /// What the renderer said.
        problem: String,
    },
}

impl ReportError {
    /// Wraps an error of the file system.
    pub(crate) fn io(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            path: path.to_owned(),
            what,
            source,
        }
    }
}
