//! The prompt of a plain completion.

use serde_json::Value;

use super::fields::{Fields, missing, wrong};
use crate::api_error::ApiError;

/// Returns the text to continue.
///
/// # Errors
/// If there is no text, or more than one.
pub(super) fn prompt(fields: &mut Fields) -> Result<String, ApiError> {
    let expected = "a string or a list of one string";
    match fields.value("prompt") {
        None => Err(missing("prompt")),
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(mut items)) => match (items.pop(), items.is_empty()) {
            (Some(Value::String(text)), true) => Ok(text),
            _ => Err(ApiError::field(
                "prompt",
                "unsupported_value",
                format!("prompt is a list without exactly one string, expected {expected}"),
            )),
        },
        Some(other) => Err(wrong("prompt", &other, expected)),
    }
}
