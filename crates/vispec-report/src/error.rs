//! Errors of reading, writing and reporting on records.

use std::io;
use std::path::{Path, PathBuf};

/// Result type of this crate.
pub type Result<T, E = ReportError> = std::result::Result<T, E>;

/// Error from writing, reading or reporting on records.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReportError {
    /// A file or directory could not be read or written.
    #[error("{}: {what}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The operation that failed, as part of the message.
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A header or a line of records is not in the expected format.
    #[error("{}:{line}: not a {expected}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line in the file, counted from 1.
        line: u64,
        /// The kind of value that was expected.
        expected: &'static str,
        /// The parse error, with its place.
        #[source]
        source: serde_json::Error,
    },
    /// A file was written by a program with another schema version.
    #[error("{}: schema version {found}, expected {expected}", path.display())]
    SchemaVersion {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u32,
        /// The version that this program reads and writes.
        expected: u32,
    },
    /// Two headers that should describe the same cell differ.
    #[error("{}: {field} is {found}, expected {expected}", path.display())]
    HeaderMismatch {
        /// Path of the header.
        path: PathBuf,
        /// The first field that differs, as a path of JSON keys.
        field: String,
        /// Its value in the file, as JSON.
        found: String,
        /// The expected value, as JSON.
        expected: String,
    },
    /// Prompts occur more than once in a cell.
    #[error("{}: prompts that occur more than once: {}", path.display(), prompt_ids.join(", "))]
    DuplicatePrompts {
        /// Path of the records.
        path: PathBuf,
        /// The ids of the duplicate prompts.
        prompt_ids: Vec<String>,
    },
    /// A record is inconsistent.
    #[error("{}:{line}: prompt {prompt_id}: {field} is {found}, expected {expected}", path.display())]
    Record {
        /// Path of the records; empty for a record that has not been written.
        path: PathBuf,
        /// Line in the file, counted from 1; 0 for a record that has not been written.
        line: u64,
        /// Id of the prompt.
        prompt_id: String,
        /// The invalid field.
        field: &'static str,
        /// Its value.
        found: String,
        /// The expected value.
        expected: String,
    },
    /// Another process is writing this cell.
    #[error("{}: another process is writing this cell", path.display())]
    Locked {
        /// Path of the records.
        path: PathBuf,
    },
    /// The shards do not form a whole cell.
    #[error("shards of cell {cell_id}: {problem}")]
    Shards {
        /// Id of the cell.
        cell_id: String,
        /// The reason.
        problem: String,
    },
    /// A string is not a valid value of the expected kind.
    #[error("{found:?} is not {expected}")]
    Parse {
        /// The string.
        found: String,
        /// The accepted values.
        expected: &'static str,
    },
    /// There is no readable cell to report on.
    #[error("{}: no readable cell; {problems} cells could not be read", path.display())]
    NoCells {
        /// The directory that was searched.
        path: PathBuf,
        /// Number of cells that were found but could not be read.
        problems: usize,
    },
    /// A drawing could not be rasterised.
    #[error("the drawing {name:?} could not be rasterised: {problem}")]
    Raster {
        /// Name of the drawing.
        name: String,
        /// The error of the renderer.
        problem: String,
    },
}

impl ReportError {
    /// Wraps an I/O error.
    pub(crate) fn io(path: &Path, what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            path: path.to_owned(),
            what,
            source,
        }
    }
}
