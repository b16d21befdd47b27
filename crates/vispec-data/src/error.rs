//! The error type of this crate.

use std::fmt;
use std::path::PathBuf;

use vispec_processor::ProcessorError;

/// The origin of a row: a file and the row number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowOrigin {
    /// The file; for drawn scenes, the name of the task.
    pub file: PathBuf,
    /// Row number from 1: the line of a JSONL file, the element of a JSON list, the record after
    /// the header of a TSV file, or the row of a Parquet file.
    pub row: usize,
}

impl fmt::Display for RowOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, row {}", self.file.display(), self.row)
    }
}

/// Everything that can go wrong when tasks are defined and samples are read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// No task has this name.
    #[error("no task {name:?}; {}", advice(.close, .known))]
    UnknownTask {
        /// The requested name.
        name: String,
        /// Similar names, best match first.
        close: Vec<String>,
        /// All names.
        known: Vec<String>,
    },
    /// Two definitions have the same name.
    #[error("a task named {name:?} already exists")]
    TaskExists {
        /// The duplicate name.
        name: String,
    },
    /// A task file is not TOML, or has unknown fields.
    #[error("task definition {name}: {source}")]
    DefinitionSyntax {
        /// The file, or the name of a built-in task.
        name: String,
        /// The error, with its position.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A field of a task definition has an invalid value.
    #[error("task definition {name}: {field} is {found:?}, expected {expected}")]
    DefinitionValue {
        /// The file, or the name of the task.
        name: String,
        /// Path of the field, with dots between levels.
        field: String,
        /// Its value.
        found: String,
        /// Description of valid values.
        expected: String,
    },

    /// A file could not be opened or read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system reported.
        #[source]
        source: std::io::Error,
    },
    /// A set of icons cannot be used.
    #[error("{path}: {problem}")]
    Icons {
        /// The file, the directory, or the icon as `set:name`.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// A file of a task is missing.
    #[error("{path}: no such file; task {task} is available from {from}")]
    MissingFile {
        /// The file, or the pattern that no file matches.
        path: PathBuf,
        /// The task.
        task: String,
        /// Where its publisher provides it.
        from: String,
    },
    /// A file, a line or a cell is larger than any valid one.
    #[error("{path}: {what} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Name of the part that is too large, with its position unless it is the whole file.
        what: String,
        /// Maximum size in bytes.
        limit: u64,
    },
    /// A file as a whole violates its format.
    #[error("{path}: not a {format} file: {reason}")]
    FileSyntax {
        /// The file.
        path: PathBuf,
        /// The format: JSON, TSV, Parquet.
        format: &'static str,
        /// The error, with its position if known.
        reason: String,
    },
    /// The extension of a file does not name a known format.
    #[error("{path}: unknown format, expected a name that ends in .json, .jsonl or .parquet")]
    UnknownFormat {
        /// The file.
        path: PathBuf,
    },
    /// A table lacks a column that the task reads.
    #[error("{path}: no column {column:?}, found {}", found.join(", "))]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// Columns of the table.
        found: Vec<String>,
    },

    /// A row cannot be parsed.
    #[error("{origin}: not {expected}: {reason}")]
    RowSyntax {
        /// The row.
        origin: RowOrigin,
        /// The expected syntax.
        expected: &'static str,
        /// The error.
        reason: String,
    },
    /// A row lacks a field that the task reads, or the field has the wrong type.
    #[error("{origin}: field {field:?} is {found}, expected {expected}")]
    Field {
        /// The row.
        origin: RowOrigin,
        /// The field.
        field: String,
        /// The value found.
        found: String,
        /// The expected value.
        expected: &'static str,
    },
    /// A path in a row leads outside the data directory.
    #[error("{origin}: the path {path:?} leads outside the data directory")]
    PathOutside {
        /// The row.
        origin: RowOrigin,
        /// The path, relative to the data directory.
        path: String,
    },
    /// The image of a row is missing.
    #[error("{origin}: no image at {image}")]
    MissingImage {
        /// The row.
        origin: RowOrigin,
        /// Path or column of the image.
        image: String,
    },
    /// The image of a row cannot be decoded.
    #[error("{origin}: {source}")]
    BadImage {
        /// The row.
        origin: RowOrigin,
        /// The error of the decoder.
        #[source]
        source: Box<ProcessorError>,
    },
    /// A cell that should hold a base64 image is not valid base64.
    #[error("{origin}: column {column:?} is not base64: {reason}")]
    Base64 {
        /// The row.
        origin: RowOrigin,
        /// The column.
        column: String,
        /// The error.
        reason: String,
    },
    /// The frames of a video are missing.
    #[error(
        "{origin}: no frames in {folder}; video files are not decoded, extract frames with \
         ffmpeg -i {video} -vf fps=2 {folder}/%04d.png"
    )]
    NoFrames {
        /// The row.
        origin: RowOrigin,
        /// Folder that should hold the frames as images.
        folder: PathBuf,
        /// The video file.
        video: PathBuf,
    },
    /// Two rows of a task have the same id.
    #[error("{origin}: the id {id:?} is already used by {first}")]
    DuplicateId {
        /// The later row.
        origin: RowOrigin,
        /// The id.
        id: String,
        /// The earlier row.
        first: RowOrigin,
    },

    /// There are more bad rows than the caller tolerates.
    #[error("{found} bad rows, {limit} are tolerated; the last: {last}")]
    TooManyBadRows {
        /// Number of bad rows so far.
        found: usize,
        /// Number of tolerated bad rows.
        limit: usize,
        /// The last one.
        #[source]
        last: Box<DataError>,
    },
    /// A task has fewer rows than its subset selects, so its files are probably incomplete.
    #[error("task {task} has {found} rows, its subset takes {expected}; are the files complete?")]
    TooFewRows {
        /// The task.
        task: String,
        /// Number of rows after filtering.
        found: usize,
        /// Number of rows that the subset selects.
        expected: usize,
    },
    /// The index of a sample is out of range.
    #[error("task {task} has {found} samples, index {index} is out of range")]
    NoSuchSample {
        /// The task.
        task: String,
        /// The requested index, from 0.
        index: usize,
        /// Number of samples.
        found: usize,
    },
}

impl DataError {
    /// Returns whether the error concerns a single row, so that later rows may be fine.
    #[must_use]
    pub fn is_of_one_row(&self) -> bool {
        matches!(
            self,
            Self::RowSyntax { .. }
                | Self::Field { .. }
                | Self::PathOutside { .. }
                | Self::MissingImage { .. }
                | Self::BadImage { .. }
                | Self::Base64 { .. }
                | Self::NoFrames { .. }
        )
    }
}

/// Suggests similar names if there are any, otherwise lists all.
fn advice(close: &[String], known: &[String]) -> String {
    if close.is_empty() {
        format!("known tasks: {}", known.join(", "))
    } else {
        format!("did you mean {}?", close.join(" or "))
    }
}

/// The result type of this crate.
pub(crate) type Result<T, E = DataError> = std::result::Result<T, E>;
