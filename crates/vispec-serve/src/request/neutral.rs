//! Unsupported fields of the API that are accepted with values that have no effect.

use serde_json::Value;

use super::fields::{Fields, unknown};
use crate::api_error::ApiError;

/// Values with which a field does not change the answer.
#[derive(Debug, Clone, Copy)]
enum Neutral {
    /// Any value.
    Any,
    /// This number.
    Number(f64),
    /// An empty list or object, or false.
    Empty,
    /// One of these strings, or nothing.
    OneOf(&'static [&'static str]),
    /// A list that holds only text.
    TextOnly,
}

const FIELDS: &[(&str, Neutral)] = &[
    ("user", Neutral::Any),
    ("metadata", Neutral::Any),
    ("safety_identifier", Neutral::Any),
    ("prompt_cache_key", Neutral::Any),
    ("prompt_cache_retention", Neutral::Any),
    ("best_of", Neutral::Number(1.0)),
    ("min_p", Neutral::Number(0.0)),
    ("functions", Neutral::Empty),
    ("store", Neutral::Empty),
    ("echo", Neutral::Empty),
    ("suffix", Neutral::OneOf(&[""])),
    ("function_call", Neutral::OneOf(&["none", "auto"])),
    ("service_tier", Neutral::OneOf(&["auto", "default"])),
    ("modalities", Neutral::TextOnly),
    ("audio", Neutral::Empty),
    ("prediction", Neutral::Empty),
    ("reasoning_effort", Neutral::OneOf(&[])),
    ("truncation", Neutral::OneOf(&["disabled"])),
    ("include", Neutral::Empty),
    ("background", Neutral::Empty),
    ("reasoning", Neutral::Empty),
    ("top_logprobs", Neutral::Number(0.0)),
    ("verbosity", Neutral::OneOf(&[])),
    ("web_search_options", Neutral::OneOf(&[])),
];

impl Neutral {
    fn holds(self, value: &Value) -> bool {
        match self {
            Self::Any => true,
            Self::Number(number) => value
                .as_f64()
                .is_some_and(|found| found.total_cmp(&number).is_eq()),
            Self::Empty => match value {
                Value::Bool(value) => !value,
                Value::Array(items) => items.is_empty(),
                Value::Object(fields) => fields.is_empty(),
                Value::Null | Value::Number(_) | Value::String(_) => false,
            },
            Self::OneOf(names) => value.as_str().is_some_and(|name| names.contains(&name)),
            Self::TextOnly => *value == serde_json::json!(["text"]),
        }
    }

    /// Describes the accepted values, for messages.
    fn describe(self) -> String {
        match self {
            Self::Any => "anything".to_owned(),
            Self::Number(number) => number.to_string(),
            Self::Empty => "none, false or empty".to_owned(),
            Self::OneOf([]) => "no value".to_owned(),
            Self::OneOf(names) => format!("one of {names:?}"),
            Self::TextOnly => r#"["text"]"#.to_owned(),
        }
    }
}

/// Rejects the remaining fields of a request, unless their values have no effect.
///
/// # Errors
/// Names the first field at fault.
pub(super) fn check_rest(fields: Fields) -> Result<(), ApiError> {
    for (name, value) in fields.rest() {
        let Some((_, neutral)) = FIELDS.iter().find(|(known, _)| *known == name) else {
            return Err(unknown(&name));
        };
        if !neutral.holds(&value) {
            let accepted = neutral.describe();
            return Err(ApiError::field(
                &name,
                "unsupported_value",
                format!("{name} is not supported by this server, which only accepts {accepted}"),
            ));
        }
    }
    Ok(())
}
