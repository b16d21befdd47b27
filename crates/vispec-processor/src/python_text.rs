//! Values of templates as text, in the form that Python gives them.

use std::fmt::{self, Write};

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, Output, State};

/// Deepest nesting of lists and dictionaries that is written.
const MAX_DEPTH: usize = 64;
/// Longest text that a filter makes of one value, in bytes.
const MAX_BYTES: usize = 4 << 20;

/// Writes what `{{ value }}` stands for.
pub(crate) fn format_value(
    out: &mut Output<'_>,
    _state: &State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    write_str(out, value).map_err(|fmt::Error| failed("a value could not be written"))
}

/// What Python's `str` gives.
///
/// # Errors
/// If the text is longer than 4 MiB or lists are nested more than 64 times.
pub(crate) fn python_str(value: &Value) -> Result<String, Error> {
    let mut text = BoundedText(String::new());
    match write_str(&mut text, value) {
        Ok(()) => Ok(text.0),
        Err(fmt::Error) => Err(failed(
            "the text of a value is too long or nested too deeply",
        )),
    }
}

fn failed(reason: &'static str) -> Error {
    Error::new(ErrorKind::WriteFailure, reason)
}

struct BoundedText(String);

impl Write for BoundedText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.len() > MAX_BYTES - self.0.len() {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

fn write_str(out: &mut dyn Write, value: &Value) -> fmt::Result {
    match value.as_str() {
        Some(text) => out.write_str(text),
        None if value.is_undefined() => Ok(()),
        None => write_repr(out, value, 0),
    }
}

fn write_repr(out: &mut dyn Write, value: &Value, depth: usize) -> fmt::Result {
    if depth > MAX_DEPTH {
        return Err(fmt::Error);
    }
    match value.kind() {
        ValueKind::Undefined => out.write_str("Undefined"),
        ValueKind::String => write_quoted(out, value.as_str().unwrap_or_default()),
        ValueKind::Number if !value.is_integer() => match f64::try_from(value.clone()) {
            Ok(number) => write_float(out, number),
            Err(_) => write!(out, "{value}"),
        },
        ValueKind::Seq => {
            out.write_char('[')?;
            for (index, item) in value.try_iter().map_err(|_| fmt::Error)?.enumerate() {
                separate(out, index)?;
                write_repr(out, &item, depth + 1)?;
            }
            out.write_char(']')
        }
        ValueKind::Map => {
            out.write_char('{')?;
            for (index, key) in value.try_iter().map_err(|_| fmt::Error)?.enumerate() {
                separate(out, index)?;
                write_repr(out, &key, depth + 1)?;
                out.write_str(": ")?;
                let item = value.get_item(&key).map_err(|_| fmt::Error)?;
                write_repr(out, &item, depth + 1)?;
            }
            out.write_char('}')
        }
        _ => write!(out, "{value}"),
    }
}

fn separate(out: &mut dyn Write, index: usize) -> fmt::Result {
    out.write_str(if index == 0 { "" } else { ", " })
}

/// Single quotes unless there are such in the text and no double ones.
fn write_quoted(out: &mut dyn Write, text: &str) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.write_char(quote)?;
    for c in text.chars() {
        match c {
            '\\' => out.write_str("\\\\")?,
            '\n' => out.write_str("\\n")?,
            '\r' => out.write_str("\\r")?,
            '\t' => out.write_str("\\t")?,
            _ if c == quote => write!(out, "\\{c}")?,
            _ if is_printable(c) => out.write_char(c)?,
            '\0'..='\u{ff}' => write!(out, "\\x{:02x}", u32::from(c))?,
            '\u{100}'..='\u{ffff}' => write!(out, "\\u{:04x}", u32::from(c))?,
            _ => write!(out, "\\U{:08x}", u32::from(c))?,
        }
    }
    out.write_char(quote)
}

/// Whether a character is shown as it is. Python and the standard library go by the same
/// categories of Unicode; behind a letter the library lets combining characters stand.
fn is_printable(c: char) -> bool {
    c.is_ascii_graphic() || c == ' ' || {
        let pair = String::from_iter(['a', c]);
        !pair.escape_debug().any(|escaped| escaped == '\\')
    }
}

/// The fewest digits that give the number back, as both languages write it; exponents differ.
fn write_float(out: &mut dyn Write, number: f64) -> fmt::Result {
    if number.is_nan() {
        return out.write_str("nan");
    }
    let text = format!("{number:?}");
    match text.split_once('e') {
        None => out.write_str(&text),
        Some((digits, exponent)) => {
            let (sign, exponent) = match exponent.strip_prefix('-') {
                Some(exponent) => ('-', exponent),
                None => ('+', exponent),
            };
            write!(out, "{digits}e{sign}{exponent:0>2}")
        }
    }
}
