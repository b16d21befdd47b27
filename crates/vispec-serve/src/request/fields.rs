//! Taking the fields out of a JSON object one by one, so that unknown ones are detected.

use serde_json::{Map, Value};

use super::kind;
use crate::api_error::ApiError;

/// Maximum number of values in a body: each takes a hundred bytes of memory or more, however short.
const MAX_VALUES: usize = 1 << 20;

/// The fields of an object that have not been taken yet. A null field counts as absent.
#[derive(Debug)]
pub(crate) struct Fields {
    /// Location of the object, such as `messages[0].`; empty at the top level.
    prefix: String,
    map: Map<String, Value>,
}

impl Fields {
    /// Parses a body.
    ///
    /// # Errors
    /// If it is not a JSON object, or has too many values.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let status = axum::http::StatusCode::BAD_REQUEST;
        let n_values = most_values(body);
        if n_values > MAX_VALUES {
            return Err(ApiError::new(
                status,
                "too_many_values",
                format!("the body has {n_values} values, expected at most {MAX_VALUES}"),
            ));
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Self {
                prefix: String::new(),
                map,
            }),
            Ok(other) => Err(ApiError::new(
                status,
                "invalid_json",
                format!("the body is {}, expected an object", kind(&other)),
            )),
            Err(error) => Err(ApiError::new(
                status,
                "invalid_json",
                format!("the body is not valid JSON: {error}"),
            )),
        }
    }

    /// Returns the fields of the object at `location`.
    ///
    /// # Errors
    /// If it is not an object.
    pub(crate) fn of(location: &str, value: Value) -> Result<Self, ApiError> {
        match value {
            Value::Object(map) => Ok(Self {
                prefix: format!("{location}."),
                map,
            }),
            other => Err(wrong(location, &other, "an object")),
        }
    }

    /// Returns the location of a field.
    pub(crate) fn location(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Returns a value of any type without taking it.
    pub(crate) fn peek(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// Takes a value of any type.
    pub(crate) fn value(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// Takes a string.
    pub(crate) fn string(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(&self.location(name), &other, "a string")),
        }
    }

    /// Takes a required string.
    pub(crate) fn required_string(&mut self, name: &str) -> Result<String, ApiError> {
        self.string(name)?
            .ok_or_else(|| missing(&self.location(name)))
    }

    /// Takes a required list.
    pub(crate) fn required_list(&mut self, name: &str) -> Result<Vec<Value>, ApiError> {
        match self.value(name) {
            None => Err(missing(&self.location(name))),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(wrong(&self.location(name), &other, "a list")),
        }
    }

    /// Takes a boolean.
    pub(crate) fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(wrong(&self.location(name), &other, "a boolean")),
        }
    }

    /// Takes a number.
    pub(crate) fn number(&mut self, name: &str) -> Result<Option<f64>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(wrong(&self.location(name), &value, "a number")),
            },
        }
    }

    /// Takes an integer of at least `least`.
    pub(crate) fn integer(&mut self, name: &str, least: u64) -> Result<Option<u64>, ApiError> {
        let Some(value) = self.value(name) else {
            return Ok(None);
        };
        let location = self.location(name);
        if !value.is_number() {
            return Err(wrong(&location, &value, "a whole number"));
        }
        match value.as_u64().filter(|&number| number >= least) {
            Some(number) => Ok(Some(number)),
            None => Err(ApiError::field(
                &location,
                "invalid_value",
                format!("{location} is {value}, expected a whole number of at least {least}"),
            )),
        }
    }

    /// Takes an object.
    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Self>, ApiError> {
        let location = self.location(name);
        let value = self.value(name);
        value.map(|value| Self::of(&location, value)).transpose()
    }

    /// Rejects whatever has not been taken.
    ///
    /// # Errors
    /// Names the first field that is left.
    pub(crate) fn end(self) -> Result<(), ApiError> {
        self.rest()
            .next()
            .map_or(Ok(()), |(location, _)| Err(unknown(&location)))
    }

    /// Returns the fields that have not been taken and are not null, with their locations.
    pub(crate) fn rest(self) -> impl Iterator<Item = (String, Value)> {
        let Self { prefix, map } = self;
        map.into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(move |(name, value)| (format!("{prefix}{name}"), value))
    }
}

/// Upper bound of the number of values in a JSON text: one, plus one for each comma and opening
/// bracket outside of strings.
fn most_values(json: &[u8]) -> usize {
    let mut n_values = 1;
    let mut in_string = false;
    let mut is_escaped = false;
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = in_string,
            b'"' => in_string = !in_string,
            b',' | b'[' | b'{' if !in_string => n_values += 1,
            _ => {}
        }
    }
    n_values
}

/// Error for a field of an unexpected type.
pub(crate) fn wrong(location: &str, found: &Value, expected: &str) -> ApiError {
    let message = format!("{location} is {}, expected {expected}", kind(found));
    ApiError::field(location, "invalid_type", message)
}

/// Error for a missing required field.
pub(crate) fn missing(location: &str) -> ApiError {
    ApiError::field(location, "missing_field", format!("{location} is missing"))
}

/// Error for a field that does not exist in the API or is unknown to this server.
pub(crate) fn unknown(location: &str) -> ApiError {
    ApiError::field(
        location,
        "unknown_field",
        format!("the field {location} is unknown to this server"),
    )
}
