//! The error type of this crate.

use std::fmt;
use std::path::PathBuf;

use vispec_processor::ProcessorError;

/// Where a row comes from: a file and the place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowOrigin {
    /// The file; for drawn scenes the name of the task.
    pub file: PathBuf,
    /// Row, counted from 1: the line of a JSONL file, the element of a JSON list, the record after
    /// the header of a TSV file, the row of a Parquet file.
    pub row: usize,
}

impl fmt::Display for RowOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, row {}", self.file.display(), self.row)
    }
}

/// Everything that can go wrong between the files of a task and its samples.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// No task has this name.
    #[error("no task {name:?}; {}", advice(.close, .known))]
    UnknownTask {
        /// What was asked for.
        name: String,
        /// Names that are spelled alike, best first.
        close: Vec<String>,
        /// All names.
        known: Vec<String>,
    },
    /// Two definitions have the same name.
    #[error("a task named {name:?} is there already")]
    TaskExists {
        /// The name.
        name: String,
    },
    /// A task file is not TOML, or has fields that a definition does not have.
    #[error("task definition {name}: {source}")]
    DefinitionSyntax {
        /// The file, or the name of a task that is built in.
        name: String,
        /// What is wrong, with its place.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A field of a task definition has a value that cannot be used.
    #[error("task definition {name}: {field} is {found:?}, expected {expected}")]
    DefinitionValue {
        /// The file, or the name of the task.
        name: String,
        /// The field, with dots between levels.
        field: String,
        /// Its value.
        found: String,
        /// What would be valid.
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
    /// Sets of icons cannot be used.
    #[error("{path}: {problem}")]
    Icons {
        /// The file, the directory, or the icon as `set:name`.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A file of a task is not there.
    #[error("{path}: no such file; task {task} is available from {from}")]
    MissingFile {
        /// The file, or the pattern that no file matches.
        path: PathBuf,
        /// The task.
        task: String,
        /// Where its publisher has it.
        from: String,
    },
    /// A file, a line of it or a cell of it is larger than any of its kind can be.
    #[error("{path}: {what} is larger than the {limit} bytes that are read at most")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What is too large, with its place if it is not the file.
        what: String,
        /// Bytes that are read at most.
        limit: u64,
    },
    /// A file as a whole is not what its format asks for.
    #[error("{path}: not a {format} file: {reason}")]
    FileSyntax {
        /// The file.
        path: PathBuf,
        /// The format: JSON, TSV, Parquet.
        format: &'static str,
        /// What is wrong, with its place if known.
        reason: String,
    },
    /// A file's name does not say what format it has.
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
        /// Columns that are there.
        found: Vec<String>,
    },

    /// A row cannot be parsed.
    #[error("{origin}: not {expected}: {reason}")]
    RowSyntax {
        /// The row.
        origin: RowOrigin,
        /// What it should be.
        expected: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A row lacks a field that the task reads, or has a value of another type there.
    #[error("{origin}: field {field:?} is {found}, expected {expected}")]
    Field {
        /// The row.
        origin: RowOrigin,
        /// The field.
        field: String,
        /// What is there.
        found: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// A row names a file outside of the data directory.
    #[error("{origin}: the path {path:?} leads out of the data directory")]
    PathOutside {
        /// The row.
        origin: RowOrigin,
        /// The path, relative to the data directory.
        path: String,
    },
    /// The image of a row is not there.
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
        /// What is wrong with it.
        #[source]
        source: Box<ProcessorError>,
    },
    /// A cell that holds an image in base64 holds something else.
    #[error("{origin}: column {column:?} is not base64: {reason}")]
    Base64 {
        /// The row.
        origin: RowOrigin,
        /// The column.
        column: String,
        /// What is wrong.
        reason: String,
    },
    /// The frames of a video are not there.
    #[error(
        "{origin}: no frames in {folder}; video files are not decoded, make frames with \
         ffmpeg -i {video} -vf fps=2 {folder}/%04d.png"
    )]
    NoFrames {
        /// The row.
        origin: RowOrigin,
        /// Folder that should hold the frames as images.
        folder: PathBuf,
        /// The video that they come from.
        video: PathBuf,
    },
    /// Two rows of a task have the same id.
    #[error("{origin}: the id {id:?} is that of {first} already")]
    DuplicateId {
        /// The later row.
        origin: RowOrigin,
        /// The id.
        id: String,
        /// The earlier row.
        first: RowOrigin,
    },

    /// More rows are bad than the caller tolerates.
    #[error("{found} bad rows, {limit} are tolerated; the last: {last}")]
    TooManyBadRows {
        /// Bad rows until now.
        found: usize,
        /// Bad rows that are tolerated.
        limit: usize,
        /// The last one.
        #[source]
        last: Box<DataError>,
    },
    /// A task has fewer rows than its subset takes, so the files cannot be complete.
    #[error("task {task} has {found} rows, its subset takes {expected}; are the files complete?")]
    TooFewRows {
        /// The task.
        task: String,
        /// Rows after filters.
        found: usize,
        /// Rows that the subset takes.
        expected: usize,
    },
    /// A task has no sample with this index.
    #[error("task {task} has {found} samples, there is no index {index}")]
    NoSuchSample {
        /// The task.
        task: String,
        /// What was asked for, from 0.
        index: usize,
        /// Number of samples.
        found: usize,
    },
}

impl DataError {
    /// Whether this is the fault of one row, so that the rows after it may be fine.
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

/// Close names if there are any, otherwise all.
fn advice(close: &[String], known: &[String]) -> String {
    if close.is_empty() {
        format!("known are {}", known.join(", "))
    } else {
        format!("did you mean {}?", close.join(" or "))
    }
}

/// Short form used throughout the crate.
pub(crate) type Result<T, E = DataError> = std::result::Result<T, E>;
