//! Filters whose results differ between Jinja2 and the template engine.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};

use crate::python_text::python_str;

/// Maximum number of decimal places; no number has as many.
const MAX_PRECISION: usize = 400;

/// Replaces the filters of an environment that behave differently in Jinja2.
pub(crate) fn add_filters(environment: &mut Environment<'_>) {
    environment.add_filter("string", |value: &Value| python_str(value));
    environment.add_filter("join", join);
    environment.add_filter("round", round);
}

fn join(values: &Value, separator: Option<&str>) -> Result<String, Error> {
    let mut joined = String::new();
    if values.is_undefined() {
        return Ok(joined);
    }
    for (index, value) in values.try_iter()?.enumerate() {
        if index > 0 {
            joined.push_str(separator.unwrap_or_default());
        }
        joined.push_str(&python_str(&value)?);
    }
    Ok(joined)
}

/// Rounds halves to even, and other numbers by their exact binary value, as Python does.
fn round(
    value: &Value,
    precision: Option<usize>,
    method: Option<&str>,
    named: Kwargs,
) -> Result<Value, Error> {
    let precision = precision.map_or_else(|| named.get("precision"), |given| Ok(Some(given)))?;
    let method = method.map_or_else(|| named.get("method"), |given| Ok(Some(given)))?;
    named.assert_all_used()?;
    let invalid = |reason: String| Error::new(ErrorKind::InvalidOperation, reason);
    if value.kind() != ValueKind::Number {
        return Err(invalid(format!("cannot round {}", value.kind())));
    }
    let places = precision.unwrap_or(0).min(MAX_PRECISION);
    let method = method.unwrap_or("common");
    if method == "common" && value.is_integer() {
        return Ok(value.clone());
    }
    let number = f64::try_from(value.clone())?;
    let scale = 10f64.powi(i32::try_from(places).unwrap_or(i32::MAX));
    let rounded = match method {
        "common" => format!("{number:.places$}")
            .parse()
            .map_err(|_| invalid(format!("cannot round {number}")))?,
        "ceil" => (number * scale).ceil() / scale,
        "floor" => (number * scale).floor() / scale,
        other => return Err(invalid(format!("unknown rounding method {other:?}"))),
    };
    Ok(Value::from(rounded))
}
