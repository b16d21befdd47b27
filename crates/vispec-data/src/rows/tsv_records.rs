//! Parsing of tab-separated records.
//!
//! Quoting follows `pandas.read_table`: a field that starts with `"` ends at the next single `"`,
//! and may contain tabs, line breaks and doubled `""`.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::Path;

use super::io_error;
use crate::error::{DataError, Result};

/// Maximum size of a record in bytes; the largest published images are about 10 MB in base64.
const MAX_RECORD: u64 = 256 << 20;

/// Reads one field of the record that starts at byte `start`; returns `None` if it does not exist.
pub(super) fn read_field(path: &Path, start: u64, field: usize) -> Result<Option<Vec<u8>>> {
    let values = Records::open(path, start)?.next()?.unwrap_or_default();
    Ok(values.into_iter().nth(field))
}

/// Returns the error for an invalid file.
pub(super) fn wrong(path: &Path, reason: String) -> DataError {
    DataError::FileSyntax {
        path: path.to_owned(),
        format: "TSV",
        reason,
    }
}

/// State of the parser within a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    FieldStart,
    Plain,
    Quoted,
    /// After a quote inside a quoted field: either the end of the field or half of a doubled quote.
    QuoteInQuoted,
}

/// A reader of consecutive records.
pub(super) struct Records<'a, R> {
    path: &'a Path,
    reader: BufReader<R>,
    position: u64,
}

impl<'a> Records<'a, File> {
    pub(super) fn open(path: &'a Path, start: u64) -> Result<Self> {
        let mut file = File::open(path).map_err(io_error(path))?;
        file.seek(SeekFrom::Start(start)).map_err(io_error(path))?;
        Ok(Self::new(path, file, start))
    }
}

impl<'a, R: std::io::Read> Records<'a, R> {
    /// `file` must already be at `position`.
    pub(super) fn new(path: &'a Path, file: R, position: u64) -> Self {
        Self {
            path,
            reader: BufReader::with_capacity(64 << 10, file),
            position,
        }
    }

    /// Returns the byte offset of the next record.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Returns the fields of the next record without quotes, or `None` at the end of the file.
    pub(super) fn next(&mut self) -> Result<Option<Vec<Vec<u8>>>> {
        let start = self.position;
        let mut fields = vec![Vec::new()];
        let mut state = State::FieldStart;
        loop {
            let chunk = self.reader.fill_buf().map_err(io_error(self.path))?;
            if chunk.is_empty() {
                return match state {
                    State::Quoted => Err(wrong(
                        self.path,
                        format!("the record at byte {start} has a quote that is not closed"),
                    )),
                    _ if self.position == start => Ok(None),
                    _ => Ok(Some(fields)),
                };
            }
            let end = chunk
                .iter()
                .position(|&byte| !accept(byte, &mut state, &mut fields));
            let used = end.map_or(chunk.len(), |end| end + 1);
            self.reader.consume(used);
            self.position += used as u64;
            if end.is_some() {
                return Ok(Some(fields));
            }
            if self.position - start > MAX_RECORD {
                return Err(DataError::TooLarge {
                    path: self.path.to_owned(),
                    what: format!("the record at byte {start}"),
                    limit: MAX_RECORD,
                });
            }
        }
    }
}

/// Processes the next byte of a record; returns `false` if it ends the record.
fn accept(byte: u8, state: &mut State, fields: &mut Vec<Vec<u8>>) -> bool {
    let Some(field) = fields.last_mut() else {
        return false;
    };
    match (*state, byte) {
        (State::Quoted, b'"') => *state = State::QuoteInQuoted,
        (State::Quoted, _) => field.push(byte),
        (State::QuoteInQuoted, b'"') => {
            field.push(byte);
            *state = State::Quoted;
        }
        (State::FieldStart, b'"') => *state = State::Quoted,
        (_, b'\t') => {
            fields.push(Vec::new());
            *state = State::FieldStart;
        }
        (_, b'\n') => {
            if *state != State::QuoteInQuoted && field.last() == Some(&b'\r') {
                field.pop();
            }
            return false;
        }
        // First half of a line break (`\r\n`) after a quoted field.
        (State::QuoteInQuoted, b'\r') => {}
        (State::FieldStart | State::Plain | State::QuoteInQuoted, _) => {
            field.push(byte);
            *state = State::Plain;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(text: &str) -> Vec<Vec<String>> {
        let mut records = Records::new(Path::new("t.tsv"), text.as_bytes(), 0);
        let mut all = Vec::new();
        while let Some(fields) = records.next().unwrap() {
            let text = |field| String::from_utf8(field).unwrap();
            all.push(fields.into_iter().map(text).collect());
        }
        all
    }

    #[test]
    fn quotes_protect_tabs_and_line_breaks() {
        assert_eq!(
            records("a\tb\r\n\"x\ty\n\"\"z\"\"\"\tq\"q\n"),
            [vec!["a", "b"], vec!["x\ty\n\"z\"", "q\"q"]]
        );
        assert_eq!(records("\"a\"\r\nb"), [["a"], ["b"]]);
        assert_eq!(records("\t\n"), [["", ""]]);
        assert!(records("").is_empty());
    }

    #[test]
    fn an_open_quote_is_an_error() {
        let mut records = Records::new(Path::new("t.tsv"), &b"a\n\"b\tc\n"[..], 0);
        records.next().unwrap();
        let error = records.next().unwrap_err();
        assert!(matches!(error, DataError::FileSyntax { format: "TSV", .. }));
        assert!(error.to_string().contains("byte 2"), "{error}");
    }
}
