//! Rows of published files: one lazy reader per format.
//!
//! A [`Table`] knows the number of rows and where each begins, and reads a row on request. Images
//! are never part of a [`Record`]; they are locations that are read when they are decoded.

mod file_pattern;
mod image_source;
mod json;
mod parquet;
mod parquet_cell;
mod record;
mod rows_definition;
mod scene_rows;
mod science_qa;
mod tables;
mod tsv;
mod tsv_records;
mod video_source;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::{DataError, Result, RowOrigin};

pub use image_source::ImageSource;
pub use video_source::VideoSource;

pub(crate) use file_pattern::{matching_files, path_below};
pub(crate) use record::Record;
pub(crate) use rows_definition::RowsDefinition;
pub(crate) use scene_rows::SceneRows;
pub(crate) use tables::{open_files, open_tables};
pub(crate) use video_source::frames_in;

/// The rows of one or more files, in order.
pub(crate) trait Table: Send {
    /// Returns the number of rows.
    fn n_rows(&self) -> usize;

    /// Returns the origin of a row, counted from 0.
    fn origin(&self, row: usize) -> RowOrigin;

    /// Reads the fields of a row, without its images.
    fn record(&mut self, row: usize) -> Result<Record>;

    /// Returns the image in a column of a row. Only tables that contain images have such columns.
    fn image(&self, row: usize, column: &str) -> Result<ImageSource> {
        Err(DataError::MissingImage {
            origin: self.origin(row),
            image: format!("column {column}; files of this format hold no images"),
        })
    }
}

/// The columns that a task reads: text columns, which are read for every row, and image columns.
#[derive(Debug, Default)]
pub(crate) struct Columns {
    pub(crate) text: BTreeSet<String>,
    pub(crate) images: BTreeSet<String>,
}

/// Context that readers need to open files and report errors.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    /// Directory that the task's paths are relative to.
    pub(crate) data_dir: &'a Path,
    /// Name of the task.
    pub(crate) task: &'a str,
    /// Where the publisher provides the files.
    pub(crate) from: &'a str,
    /// The columns to read.
    pub(crate) columns: &'a Columns,
}

impl Source<'_> {
    fn missing_file(&self, path: PathBuf) -> DataError {
        DataError::MissingFile {
            path,
            task: self.task.to_owned(),
            from: self.from.to_owned(),
        }
    }

    /// Checks that a table with a header has the columns to read.
    fn check_columns(&self, path: &Path, found: &[String]) -> Result<()> {
        let needed = self.columns.text.iter().chain(&self.columns.images);
        match needed.into_iter().find(|name| !found.contains(name)) {
            None => Ok(()),
            Some(column) => Err(DataError::MissingColumn {
                path: path.to_owned(),
                column: column.clone(),
                found: found.to_vec(),
            }),
        }
    }
}

/// Returns the error for a file that cannot be opened or read.
fn io_error(path: &Path) -> impl Fn(std::io::Error) -> DataError + '_ {
    |source| DataError::Io {
        path: path.to_owned(),
        source,
    }
}
