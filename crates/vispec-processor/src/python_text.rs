//! Formats template values as text like Python does.

use std::fmt::{self, Write};

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, Output, State};

/// Maximum nesting depth of lists and dictionaries.
const MAX_DEPTH: usize = 64;
/// Maximum length in bytes of the text that a filter makes from one value.
const MAX_BYTES: usize = 4 << 20;

/// Writes the text of `{{ value }}`.
pub(crate) fn format_value(
    out: &mut Output<'_>,
    _state: &State<'_, '_>,
    value: &Value,
) -> Result<(), Error> {
    write_str(out, value).map_err(|fmt::Error| failed("a value could not be written"))
}

/// Formats a value like Python's `str`.
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

/// Writes a text in single quotes, or in double quotes if it contains single but no double quotes.
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

/// Returns whether a character is written unescaped.
///
/// Python and the standard library use the same Unicode categories. The library does not escape
/// combining characters after a letter, so the character is tested after one.
fn is_printable(c: char) -> bool {
    c.is_ascii_graphic() || c == ' ' || {
        let pair = String::from_iter(['a', c]);
        !pair.escape_debug().any(|escaped| escaped == '\\')
    }
}

/// Writes the shortest digits that parse to the same number, as both languages do; only the format
/// of exponents differs.
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
