//! Writes JSON like Python's `json.dumps(..., ensure_ascii=False)`.

use std::io;

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{Formatter, PrettyFormatter};

/// Writes a value with the separators `", "` and `": "`, or with one item per line if `indent` is
/// given.
pub(crate) fn to_python_json(
    value: &impl Serialize,
    indent: Option<usize>,
) -> serde_json::Result<String> {
    /// Maximum indentation; keeps templates from asking for gigabytes.
    const WIDEST: usize = 64;
    let mut bytes = Vec::new();
    match indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut bytes, PythonFormatter))?,
        Some(width) => {
            let indent = " ".repeat(width.min(WIDEST));
            let formatter = PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut bytes, formatter))?;
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Separates the items of lists and objects by a comma and a space.
struct PythonFormatter;

impl PythonFormatter {
    fn separate<W: ?Sized + io::Write>(writer: &mut W, first: bool) -> io::Result<()> {
        if first {
            Ok(())
        } else {
            writer.write_all(b", ")
        }
    }
}

impl Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        Self::separate(writer, first)
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        Self::separate(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}
