//! Opening the files of a task, in any format, as one list of rows.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::json::JsonRows;
use super::parquet::ParquetRows;
use super::rows_definition::{Constants, FileEntry, RowsDefinition};
use super::science_qa::ScienceQaRows;
use super::tsv::TsvRows;
use super::{ImageSource, Record, SceneRows, Source, Table, matching_files};
use crate::error::{DataError, Result, RowOrigin};

/// The concatenated tables of several files.
struct Tables {
    parts: Vec<Part>,
}

struct Part {
    table: Box<dyn Table>,
    constants: Constants,
    /// Number of rows in earlier parts.
    start: usize,
}

impl Tables {
    /// Returns the part that contains a row, and the row's index in it.
    fn locate(&self, row: usize) -> (usize, usize) {
        let part = self.parts.partition_point(|part| part.start <= row) - 1;
        (part, row - self.parts[part].start)
    }
}

impl Table for Tables {
    fn n_rows(&self) -> usize {
        let last = self.parts.last();
        last.map_or(0, |part| part.start + part.table.n_rows())
    }

    fn origin(&self, row: usize) -> RowOrigin {
        let (part, row) = self.locate(row);
        self.parts[part].table.origin(row)
    }

    fn record(&mut self, row: usize) -> Result<Record> {
        let (part, row) = self.locate(row);
        let part = &mut self.parts[part];
        let mut record = part.table.record(row)?;
        for (name, value) in &part.constants {
            let value = Value::String(value.clone());
            record.fields.insert(name.clone(), value);
        }
        Ok(record)
    }

    fn image(&self, row: usize, column: &str) -> Result<ImageSource> {
        let (part, row) = self.locate(row);
        self.parts[part].table.image(row, column)
    }
}

/// Opens all files of a task.
///
/// # Errors
/// [`DataError::MissingFile`](crate::DataError::MissingFile) for the first missing file, and the
/// errors of the readers.
pub(crate) fn open_tables(rows: &RowsDefinition, source: &Source<'_>) -> Result<Box<dyn Table>> {
    match rows {
        RowsDefinition::JsonLines { files } => each_file(files, source, |path| {
            Ok(Box::new(JsonRows::open_lines(path)?))
        }),
        RowsDefinition::Json { files, list } => each_file(files, source, |path| {
            Ok(Box::new(JsonRows::open_document(path, list.as_deref())?))
        }),
        RowsDefinition::Tsv { files } => each_file(files, source, |path| {
            Ok(Box::new(TsvRows::open(path, source)?))
        }),
        RowsDefinition::Parquet { files } => each_file(files, source, |path| {
            Ok(Box::new(ParquetRows::open(path, source)?))
        }),
        RowsDefinition::ScienceQa {
            problems,
            splits,
            split,
        } => {
            let problems = single_file(problems, source)?;
            let splits = single_file(splits, source)?;
            Ok(Box::new(ScienceQaRows::open(&problems, &splits, split)?))
        }
        RowsDefinition::Scenes {
            style,
            seed,
            count,
            questions,
        } => Ok(Box::new(SceneRows {
            task: source.task.to_owned(),
            style: *style,
            seed: *seed,
            count: *count,
            questions: *questions,
        })),
    }
}

/// Opens files whose extensions give their format: `.json`, `.jsonl` or `.parquet`. Of a Parquet
/// file only existing columns are read; a table without an image column may have paths instead.
///
/// # Errors
/// [`DataError::UnknownFormat`](crate::DataError::UnknownFormat) for other extensions, and the
/// errors of the readers.
pub(crate) fn open_files(paths: &[PathBuf], source: &Source<'_>) -> Result<Box<dyn Table>> {
    let mut parts = Vec::new();
    let mut start = 0;
    for path in paths {
        if !path.is_file() {
            return Err(source.missing_file(path.clone()));
        }
        let extension = path.extension().and_then(|extension| extension.to_str());
        let table: Box<dyn Table> = match extension {
            Some("json") => Box::new(JsonRows::open_document(path, None)?),
            Some("jsonl") => Box::new(JsonRows::open_lines(path)?),
            Some("parquet") => Box::new(ParquetRows::open_with_id(path, source)?),
            _ => return Err(DataError::UnknownFormat { path: path.clone() }),
        };
        let n_rows = table.n_rows();
        parts.push(Part {
            table,
            constants: Constants::new(),
            start,
        });
        start += n_rows;
    }
    Ok(Box::new(Tables { parts }))
}

fn each_file(
    files: &[FileEntry],
    source: &Source<'_>,
    open: impl Fn(&Path) -> Result<Box<dyn Table>>,
) -> Result<Box<dyn Table>> {
    let mut parts = Vec::new();
    let mut start = 0;
    for entry in files {
        let paths = matching_files(source.data_dir, entry.path())?;
        if paths.is_empty() {
            return Err(source.missing_file(source.data_dir.join(entry.path())));
        }
        for path in paths {
            let table = open(&path)?;
            let n_rows = table.n_rows();
            parts.push(Part {
                table,
                constants: entry.constants(),
                start,
            });
            start += n_rows;
        }
    }
    Ok(Box::new(Tables { parts }))
}

fn single_file(name: &str, source: &Source<'_>) -> Result<PathBuf> {
    let path = source.data_dir.join(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(source.missing_file(path))
    }
}
