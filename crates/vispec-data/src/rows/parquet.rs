//! Parquet tables as published on the Hugging Face hub: text in columns, images as
//! `struct<bytes, path>`, as binary, or as base64 strings.
//!
//! The text columns that a task reads are decoded one row group at a time. An image is read by
//! skipping to its row in its column.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use parquet::basic::{ConvertedType, LogicalType, Type as PhysicalType};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};
use parquet::schema::types::{SchemaDescriptor, Type};
use serde_json::{Map, Number, Value};

use super::image_source::{Encoding, ImagePlace};
use super::parquet_cell::{
    CellPlace, check_dictionary, file_syntax, open_reader, without_panics, wrong,
};
use super::{Columns, ImageSource, Record, Source, Table};
use crate::error::{DataError, Result, RowOrigin};

/// Maximum number of rows in a row group, which is decoded as a whole. A few bytes can encode any
/// number of equal rows; writers produce groups of at most a few hundred thousand.
const MAX_GROUP_ROWS: usize = 1 << 22;

/// A column that holds images.
#[derive(Debug)]
struct ImageColumn {
    name: String,
    leaf: usize,
    encoding: Encoding,
}

/// A Parquet file, with the text of the most recently read row group.
pub(super) struct ParquetRows {
    path: PathBuf,
    reader: SerializedFileReader<File>,
    /// The text columns to read.
    projection: Type,
    images: Vec<ImageColumn>,
    /// First row of each row group, then the total number of rows.
    group_starts: Vec<usize>,
    group: Option<(usize, Vec<Map<String, Value>>)>,
}

impl ParquetRows {
    pub(super) fn open(path: &Path, source: &Source<'_>) -> Result<Self> {
        without_panics(path, || Self::open_sound(path, source))
    }

    /// Like [`Self::open`], but reads only existing columns, and also an `id`. An image column may
    /// be replaced by a text column of paths.
    pub(super) fn open_with_id(path: &Path, source: &Source<'_>) -> Result<Self> {
        let found = without_panics(path, || column_kinds(path))?;
        let mut columns = Columns::default();
        columns.text.insert("id".to_owned());
        columns.text.extend(source.columns.text.iter().cloned());
        for name in &source.columns.images {
            let is_path = found
                .get(name)
                .is_some_and(|kind| *kind == ColumnKind::Text);
            let columns = if is_path {
                &mut columns.text
            } else {
                &mut columns.images
            };
            columns.insert(name.clone());
        }
        let optional = |name: &String| found.contains_key(name) || !OPTIONAL.contains(&&**name);
        columns.text.retain(optional);
        let source = Source {
            columns: &columns,
            ..*source
        };
        Self::open(path, &source)
    }

    fn open_sound(path: &Path, source: &Source<'_>) -> Result<Self> {
        let reader = open_reader(path)?;
        let metadata = reader.metadata();
        let schema = metadata.file_metadata().schema_descr();
        let top = schema.root_schema().get_fields();
        let names: Vec<String> = top.iter().map(|field| field.name().to_owned()).collect();
        source.check_columns(path, &names)?;
        let read = top
            .iter()
            .filter(|field| source.columns.text.contains(field.name()))
            .cloned();
        let projection = Type::group_type_builder(schema.root_schema().name())
            .with_fields(read.collect())
            .build()
            .map_err(wrong(path))?;
        let images = source.columns.images.iter();
        let images = images.map(|name| image_column(path, schema, name));
        let images = images.collect::<Result<_>>()?;
        let mut group_starts = vec![0usize];
        for group in metadata.row_groups() {
            let n_rows = usize::try_from(group.num_rows()).ok();
            let n_rows = n_rows.filter(|&n_rows| n_rows <= MAX_GROUP_ROWS);
            let start = group_starts.last().copied().unwrap_or_default();
            let next = n_rows.and_then(|n_rows| start.checked_add(n_rows));
            let next = next.ok_or_else(|| {
                let found = group.num_rows();
                let reason =
                    format!("a row group of {found} rows, expected at most {MAX_GROUP_ROWS}");
                file_syntax(path, reason)
            })?;
            group_starts.push(next);
        }
        Ok(Self {
            path: path.to_owned(),
            projection,
            images,
            group_starts,
            group: None,
            reader,
        })
    }

    /// Returns the row group of a row, and its index in the group.
    fn locate(&self, row: usize) -> (usize, usize) {
        let group = self.group_starts.partition_point(|&start| start <= row) - 1;
        (group, row - self.group_starts[group])
    }

    fn read_group(&self, group: usize) -> Result<Vec<Map<String, Value>>> {
        let n_rows = self.group_starts[group + 1] - self.group_starts[group];
        let wrong = wrong(&self.path);
        let reader = self.reader.get_row_group(group).map_err(&wrong)?;
        let schema = self.reader.metadata().file_metadata().schema_descr();
        let read = self.projection.get_fields();
        for (leaf, column) in schema.columns().iter().enumerate() {
            let name = column.path().parts().first();
            if read
                .iter()
                .any(|field| Some(field.name()) == name.map(String::as_str))
            {
                check_dictionary(&self.path, &*reader, leaf)?;
            }
        }
        let rows = reader
            .get_row_iter(Some(self.projection.clone()))
            .map_err(&wrong)?;
        let rows = rows.map(|row| row.map(|row| fields(&row)).map_err(&wrong));
        let rows: Vec<_> = rows.collect::<Result<_>>()?;
        if rows.len() != n_rows {
            let reason = format!(
                "row group {group} has {} rows, its metadata says {n_rows}",
                rows.len()
            );
            return Err(file_syntax(&self.path, reason));
        }
        Ok(rows)
    }
}

impl Table for ParquetRows {
    fn n_rows(&self) -> usize {
        self.group_starts.last().copied().unwrap_or_default()
    }

    fn origin(&self, row: usize) -> RowOrigin {
        RowOrigin {
            file: self.path.clone(),
            row: row + 1,
        }
    }

    fn record(&mut self, row: usize) -> Result<Record> {
        let (group, row_in_group) = self.locate(row);
        let origin = self.origin(row);
        // A projection without columns yields no rows, and a task may need only images.
        if self.projection.get_fields().is_empty() {
            let fields = Map::new();
            return Ok(Record { origin, fields });
        }
        let rows = match self.group.take() {
            Some((read, rows)) if read == group => rows,
            _ => without_panics(&self.path, || self.read_group(group))?,
        };
        let fields = rows[row_in_group].clone();
        self.group = Some((group, rows));
        Ok(Record { origin, fields })
    }

    fn image(&self, row: usize, column: &str) -> Result<ImageSource> {
        let origin = self.origin(row);
        let Some(found) = self.images.iter().find(|image| image.name == column) else {
            let image = format!("column {column}");
            return Err(DataError::MissingImage { origin, image });
        };
        let (row_group, row) = self.locate(row);
        let place = ImagePlace::ParquetCell {
            path: self.path.clone(),
            place: CellPlace {
                row_group,
                row,
                leaf: found.leaf,
            },
            column: column.to_owned(),
        };
        Ok(ImageSource::new(origin, place, found.encoding))
    }
}

/// Columns that conversations may lack.
const OPTIONAL: [&str; 3] = ["id", "images", "videos"];

/// Content of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ColumnKind {
    Text,
    Other,
}

/// Returns the columns of a file by name.
fn column_kinds(path: &Path) -> Result<BTreeMap<String, ColumnKind>> {
    let reader = open_reader(path)?;
    let schema = reader.metadata().file_metadata().schema_descr();
    let fields = schema.root_schema().get_fields().iter();
    let kinds = fields.map(|field| {
        let info = field.get_basic_info();
        let is_text = field.is_primitive()
            && (info.converted_type() == ConvertedType::UTF8
                || matches!(info.logical_type_ref(), Some(LogicalType::String)));
        let kind = if is_text {
            ColumnKind::Text
        } else {
            ColumnKind::Other
        };
        (field.name().to_owned(), kind)
    });
    Ok(kinds.collect())
}

/// Finds the bytes of an image column, and their encoding.
fn image_column(path: &Path, schema: &SchemaDescriptor, name: &str) -> Result<ImageColumn> {
    let matches = |leaf: &usize| {
        let column = schema.column(*leaf);
        match column.path().parts() {
            [only] => only == name,
            [first, bytes] => first == name && bytes == "bytes",
            _ => false,
        }
    };
    let leaf = (0..schema.num_columns()).find(matches).filter(|leaf| {
        let column = schema.column(*leaf);
        column.physical_type() == PhysicalType::BYTE_ARRAY && column.max_rep_level() == 0
    });
    let Some(leaf) = leaf else {
        let reason = format!("column {name:?} holds neither images nor base64");
        return Err(file_syntax(path, reason));
    };
    let column = schema.column(leaf);
    let is_text = column.converted_type() == ConvertedType::UTF8
        || matches!(column.logical_type_ref(), Some(LogicalType::String));
    Ok(ImageColumn {
        name: name.to_owned(),
        leaf,
        encoding: if is_text {
            Encoding::Base64
        } else {
            Encoding::Plain
        },
    })
}

fn fields(row: &Row) -> Map<String, Value> {
    row.get_column_iter()
        .map(|(name, field)| (name.clone(), value(field)))
        .collect()
}

/// Converts a cell to JSON. Bytes, dates and times become null: no task reads them as text.
fn value(field: &Field) -> Value {
    match field {
        Field::Bool(value) => Value::Bool(*value),
        Field::Byte(value) => Value::from(*value),
        Field::Short(value) => Value::from(*value),
        Field::Int(value) => Value::from(*value),
        Field::Long(value) => Value::from(*value),
        Field::UByte(value) => Value::from(*value),
        Field::UShort(value) => Value::from(*value),
        Field::UInt(value) => Value::from(*value),
        Field::ULong(value) => Value::from(*value),
        Field::Float(value) => {
            Number::from_f64(f64::from(*value)).map_or(Value::Null, Value::Number)
        }
        Field::Double(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
        Field::Str(text) => Value::String(text.clone()),
        Field::Group(row) => Value::Object(fields(row)),
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        _ => Value::Null,
    }
}
