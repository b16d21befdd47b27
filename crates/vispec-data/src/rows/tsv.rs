//! Tab-separated values with a header and base64 images.

use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::image_source::{Encoding, ImagePlace};
use super::tsv_records::{Records, wrong};
use super::{ImageSource, Record, Source, Table, io_error};
use crate::error::{DataError, Result, RowOrigin};

/// A TSV file with an index of its records.
#[derive(Debug)]
pub(super) struct TsvRows {
    path: PathBuf,
    file: File,
    header: Vec<String>,
    /// For each column, whether it is read as text.
    is_text: Vec<bool>,
    starts: Vec<u64>,
}

impl TsvRows {
    pub(super) fn open(path: &Path, source: &Source<'_>) -> Result<Self> {
        let mut records = Records::open(path, 0)?;
        let header = match records.next()? {
            Some(fields) => fields.into_iter().map(|field| header_name(path, field)),
            None => return Err(wrong(path, "the file is empty".to_owned())),
        };
        let header: Vec<String> = header.collect::<Result<_>>()?;
        source.check_columns(path, &header)?;
        let mut starts = Vec::new();
        loop {
            let start = records.position();
            match records.next()? {
                None => break,
                Some(fields) if is_blank(&fields) => {}
                Some(_) => starts.push(start),
            }
        }
        let is_text = |name| source.columns.text.contains(name);
        Ok(Self {
            path: path.to_owned(),
            file: File::open(path).map_err(io_error(path))?,
            is_text: header.iter().map(is_text).collect(),
            header,
            starts,
        })
    }
}

impl Table for TsvRows {
    fn n_rows(&self) -> usize {
        self.starts.len()
    }

    fn origin(&self, row: usize) -> RowOrigin {
        RowOrigin {
            file: self.path.clone(),
            row: row + 1,
        }
    }

    fn record(&mut self, row: usize) -> Result<Record> {
        let origin = self.origin(row);
        self.file
            .seek(SeekFrom::Start(self.starts[row]))
            .map_err(io_error(&self.path))?;
        let values = Records::new(&self.path, &self.file, self.starts[row]).next()?;
        let values = values.unwrap_or_default();
        let broken = |reason: String| DataError::RowSyntax {
            origin: origin.clone(),
            expected: "a record of the table",
            reason,
        };
        if values.len() != self.header.len() {
            let reason = format!(
                "{} fields, the header has {}",
                values.len(),
                self.header.len()
            );
            return Err(broken(reason));
        }
        let mut fields = Map::new();
        for ((name, value), is_text) in self.header.iter().zip(values).zip(&self.is_text) {
            if *is_text {
                let text = String::from_utf8(value)
                    .map_err(|error| broken(format!("field {name:?}: {error}")))?;
                fields.insert(name.clone(), Value::String(text));
            }
        }
        Ok(Record { origin, fields })
    }

    fn image(&self, row: usize, column: &str) -> Result<ImageSource> {
        let field = self.header.iter().position(|name| name == column);
        Ok(ImageSource::new(
            self.origin(row),
            ImagePlace::TsvField {
                path: self.path.clone(),
                start: self.starts[row],
                field: field.unwrap_or(usize::MAX),
                column: column.to_owned(),
            },
            Encoding::Base64,
        ))
    }
}

fn header_name(path: &Path, field: Vec<u8>) -> Result<String> {
    let name = String::from_utf8(field).map_err(|error| wrong(path, error.to_string()))?;
    let name = name.strip_prefix('\u{feff}').unwrap_or(&name);
    Ok(name.to_owned())
}

fn is_blank(fields: &[Vec<u8>]) -> bool {
    matches!(fields, [only] if only.is_empty())
}
