//! JSON rows: a list of objects, a list inside an object, or one object per line.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{Record, Table, io_error};
use crate::error::{DataError, Result, RowOrigin};

/// Maximum size in bytes of a file with a single JSON document; it is read as a whole to find its
/// rows.
const MAX_DOCUMENT: u64 = 2 << 30;

/// Maximum length of a JSONL line in bytes.
const MAX_LINE: u64 = 64 << 20;

const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Location of the text of one row.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u64,
    n_bytes: usize,
    /// Number of the row in errors, from 1.
    number: usize,
}

/// A file of JSON objects that are read one at a time.
#[derive(Debug)]
pub(super) struct JsonRows {
    path: PathBuf,
    file: File,
    spans: Vec<Span>,
}

impl JsonRows {
    /// Opens a JSONL file; blank lines are skipped.
    pub(super) fn open_lines(path: &Path) -> Result<Self> {
        let mut reader = BufReader::new(File::open(path).map_err(io_error(path))?);
        let mut spans = Vec::new();
        let mut line = Vec::new();
        let (mut start, mut number) = (0, 0);
        loop {
            line.clear();
            let n_bytes = reader
                .by_ref()
                .take(MAX_LINE + 1)
                .read_until(b'\n', &mut line)
                .map_err(io_error(path))?;
            if n_bytes == 0 {
                break;
            }
            number += 1;
            if n_bytes as u64 > MAX_LINE {
                return Err(DataError::TooLarge {
                    path: path.to_owned(),
                    what: format!("line {number}"),
                    limit: MAX_LINE,
                });
            }
            let mark = if start == 0 && line.starts_with(BYTE_ORDER_MARK.as_bytes()) {
                BYTE_ORDER_MARK.len()
            } else {
                0
            };
            if !line[mark..].trim_ascii().is_empty() {
                spans.push(Span {
                    start: start + mark as u64,
                    n_bytes: n_bytes - mark,
                    number,
                });
            }
            start += n_bytes as u64;
        }
        Self::new(path, spans)
    }

    /// Opens a file with one document: a list of rows, or an object with the list in the field
    /// `list`.
    pub(super) fn open_document(path: &Path, list: Option<&str>) -> Result<Self> {
        let document = Document::read(path)?;
        let mut items: &RawValue = document.parse(&document.text)?;
        if let Some(field) = list {
            let fields = document.object(items)?;
            items = fields
                .into_iter()
                .find_map(|(name, value)| (name == field).then_some(value))
                .ok_or_else(|| document.wrong(format!("no field {field:?} at the top level")))?;
        }
        let items: Vec<&RawValue> = document.parse(items.get())?;
        let spans = items
            .into_iter()
            .enumerate()
            .map(|(idx, item)| document.span(item, idx + 1));
        let spans = spans.collect();
        Self::new(path, spans)
    }

    /// Opens a file with one object whose fields are the rows. Only the rows named by `keys` are
    /// selected, in the order of `keys`, which also determines their numbers.
    pub(super) fn open_keyed(path: &Path, keys: &[String]) -> Result<Self> {
        let document = Document::read(path)?;
        let fields = document.object(document.parse(&document.text)?)?;
        let spans = keys.iter().enumerate().map(|(idx, key)| {
            let item = fields
                .get(key)
                .ok_or_else(|| document.wrong(format!("no entry {key:?}")))?;
            Ok(document.span(item, idx + 1))
        });
        let spans = spans.collect::<Result<_>>()?;
        Self::new(path, spans)
    }

    fn new(path: &Path, spans: Vec<Span>) -> Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: File::open(path).map_err(io_error(path))?,
            spans,
        })
    }
}

impl Table for JsonRows {
    fn n_rows(&self) -> usize {
        self.spans.len()
    }

    fn origin(&self, row: usize) -> RowOrigin {
        RowOrigin {
            file: self.path.clone(),
            row: self.spans[row].number,
        }
    }

    fn record(&mut self, row: usize) -> Result<Record> {
        let span = self.spans[row];
        let mut text = vec![0; span.n_bytes];
        self.file
            .seek(SeekFrom::Start(span.start))
            .and_then(|_| self.file.read_exact(&mut text))
            .map_err(io_error(&self.path))?;
        let origin = self.origin(row);
        match serde_json::from_slice::<Map<String, Value>>(&text) {
            Ok(fields) => Ok(Record { origin, fields }),
            Err(error) => Err(DataError::RowSyntax {
                origin,
                expected: "a JSON object",
                reason: error.to_string(),
            }),
        }
    }
}

/// Reads the list of strings in `field` of a JSON object, the format of ScienceQA's splits.
pub(super) fn read_string_lists(path: &Path, field: &str) -> Result<Vec<String>> {
    let document = Document::read(path)?;
    let fields = document.object(document.parse(&document.text)?)?;
    let list = fields
        .get(field)
        .ok_or_else(|| document.wrong(format!("no field {field:?} at the top level")))?;
    document.parse(list.get())
}

/// A JSON file in memory.
struct Document<'a> {
    path: &'a Path,
    text: String,
    /// Number of bytes before the text: a byte order mark is not part of JSON.
    offset: u64,
}

impl<'a> Document<'a> {
    fn read(path: &'a Path) -> Result<Self> {
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(io_error(path))?;
        file.take(MAX_DOCUMENT + 1)
            .read_to_end(&mut bytes)
            .map_err(io_error(path))?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(DataError::TooLarge {
                path: path.to_owned(),
                what: "the file".to_owned(),
                limit: MAX_DOCUMENT,
            });
        }
        let not_utf8 = |error: std::string::FromUtf8Error| DataError::FileSyntax {
            path: path.to_owned(),
            format: "JSON",
            reason: error.to_string(),
        };
        let mut text = String::from_utf8(bytes).map_err(not_utf8)?;
        let mut offset = 0;
        if text.starts_with(BYTE_ORDER_MARK) {
            offset = BYTE_ORDER_MARK.len();
            text.drain(..offset);
        }
        Ok(Self {
            path,
            text,
            offset: offset as u64,
        })
    }

    fn parse<'t, T: serde::Deserialize<'t>>(&self, text: &'t str) -> Result<T> {
        serde_json::from_str(text).map_err(|error| self.wrong(error.to_string()))
    }

    fn object<'t>(
        &self,
        value: &'t RawValue,
    ) -> Result<std::collections::HashMap<String, &'t RawValue>> {
        self.parse(value.get())
    }

    /// Returns the location in the file of a value borrowed from `text`.
    fn span(&self, value: &RawValue, number: usize) -> Span {
        let start = value.get().as_ptr() as usize - self.text.as_ptr() as usize;
        Span {
            start: self.offset + start as u64,
            n_bytes: value.get().len(),
            number,
        }
    }

    fn wrong(&self, reason: String) -> DataError {
        DataError::FileSyntax {
            path: self.path.to_owned(),
            format: "JSON",
            reason,
        }
    }
}
