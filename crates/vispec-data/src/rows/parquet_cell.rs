//! Reading Parquet files safely, and single cells of them.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use parquet::column::page::Page;
use parquet::column::reader::ColumnReader;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};

use super::io_error;
use crate::error::{DataError, Result};

/// Location of a cell in a column of byte strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CellPlace {
    pub(super) row_group: usize,
    /// Row in the group, from 0.
    pub(super) row: usize,
    /// Index among the leaves of the schema.
    pub(super) leaf: usize,
}

/// Reads one cell; returns `None` if it is null.
pub(super) fn read_cell(path: &Path, place: CellPlace) -> Result<Option<Vec<u8>>> {
    without_panics(path, || read_sound_cell(path, place))
}

fn read_sound_cell(path: &Path, place: CellPlace) -> Result<Option<Vec<u8>>> {
    let reader = open_reader(path)?;
    let wrong = wrong(path);
    let group = reader.get_row_group(place.row_group).map_err(&wrong)?;
    check_dictionary(path, &*group, place.leaf)?;
    let ColumnReader::ByteArrayColumnReader(mut column) =
        group.get_column_reader(place.leaf).map_err(&wrong)?
    else {
        let reason = format!("leaf {} is not a column of byte strings", place.leaf);
        return Err(file_syntax(path, reason));
    };
    column.skip_records(place.row).map_err(&wrong)?;
    let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
    column
        .read_records(
            1,
            Some(&mut definitions),
            Some(&mut repetitions),
            &mut values,
        )
        .map_err(&wrong)?;
    Ok(values.first().map(|cell: &ByteArray| cell.data().to_vec()))
}

/// Returns an error if a dictionary is too small for the number of values in its header, for which
/// the `parquet` crate would allocate memory.
pub(super) fn check_dictionary(path: &Path, group: &dyn RowGroupReader, leaf: usize) -> Result<()> {
    let mut pages = group.get_column_page_reader(leaf).map_err(wrong(path))?;
    let first = pages.get_next_page().map_err(wrong(path))?;
    let Some(Page::DictionaryPage {
        buf, num_values, ..
    }) = first
    else {
        return Ok(());
    };
    // Each value needs at least one byte.
    if usize::try_from(num_values).is_ok_and(|values| values <= buf.len()) {
        return Ok(());
    }
    let reason = format!("a dictionary of {num_values} values in {} bytes", buf.len());
    Err(file_syntax(path, reason))
}

/// Opens a file.
pub(super) fn open_reader(path: &Path) -> Result<SerializedFileReader<File>> {
    let file = File::open(path).map_err(io_error(path))?;
    SerializedFileReader::new(file).map_err(wrong(path))
}

/// Runs code that reads a file with the `parquet` crate, and turns panics into errors, because the
/// crate panics on some damaged files. No state changed by `read` outlives a panic: each call
/// creates new readers, and [`SerializedFileReader`] itself is only read.
pub(super) fn without_panics<T>(path: &Path, read: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or_else(|panic| {
        let message = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or_else(|| panic.downcast_ref::<&str>().copied())
            .unwrap_or("no message");
        let reason = format!("damaged, the reader panicked: {message}");
        Err(file_syntax(path, reason))
    })
}

/// Converts an error of the `parquet` crate.
pub(super) fn wrong(path: &Path) -> impl Fn(ParquetError) -> DataError + '_ {
    |error| file_syntax(path, error.to_string())
}

/// Returns the error for an invalid file.
pub(super) fn file_syntax(path: &Path, reason: String) -> DataError {
    DataError::FileSyntax {
        path: path.to_owned(),
        format: "Parquet",
        reason,
    }
}
