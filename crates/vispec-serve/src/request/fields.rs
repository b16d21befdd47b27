//! Taking the fields out of a JSON object one by one, so that what is left is known.

use serde_json::{Map, Value};

use super::kind;
use crate::api_error::ApiError;

/// Most values of a body: each takes a hundred bytes and more, however few it has in the body.
const MAX_VALUES: usize = 1 << 20;

/// The fields of an object that have not been taken yet. A field that is null counts as absent.
#[derive(Debug)]
pub(crate) struct Fields {
    /// Where the object is, as in `messages[0].`; empty at the top.
    prefix: String,
    map: Map<String, Value>,
}

impl Fields {
    /// Parses a body.
    ///
    /// # Errors
    /// If it is not a JSON object, or one of very many values.
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

    /// The fields of the object at `location`.
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

    /// Where a field is.
    pub(crate) fn location(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// A value of any type, which stays.
    pub(crate) fn peek(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// A value of any type.
    pub(crate) fn value(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// A string.
    pub(crate) fn string(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(&self.location(name), &other, "a string")),
        }
    }

    /// A string that must be there.
    pub(crate) fn required_string(&mut self, name: &str) -> Result<String, ApiError> {
        self.string(name)?
            .ok_or_else(|| missing(&self.location(name)))
    }

    /// A list that must be there.
    pub(crate) fn required_list(&mut self, name: &str) -> Result<Vec<Value>, ApiError> {
        match self.value(name) {
            None => Err(missing(&self.location(name))),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(wrong(&self.location(name), &other, "a list")),
        }
    }

    /// A boolean.
    pub(crate) fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(other) => Err(wrong(&self.location(name), &other, "a boolean")),
        }
    }

    /// A number.
    pub(crate) fn number(&mut self, name: &str) -> Result<Option<f64>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(wrong(&self.location(name), &value, "a number")),
            },
        }
    }

    /// A whole number of at least `least`.
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

    /// An object.
    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Self>, ApiError> {
        let location = self.location(name);
        let value = self.value(name);
        value.map(|value| Self::of(&location, value)).transpose()
    }

    /// Refuses whatever has not been taken.
    ///
    /// # Errors
    /// Naming the first field that is left.
    pub(crate) fn end(self) -> Result<(), ApiError> {
        self.rest()
            .next()
            .map_or(Ok(()), |(location, _)| Err(unknown(&location)))
    }

    /// What has not been taken and is not null, with locations.
    pub(crate) fn rest(self) -> impl Iterator<Item = (String, Value)> {
        let Self { prefix, map } = self;
        map.into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(move |(name, value)| (format!("{prefix}{name}"), value))
    }
}

/// So many values a text in JSON has at most: one, and one behind each comma and opening bracket
/// outside of strings.
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

/// A field of another type than expected.
pub(crate) fn wrong(location: &str, found: &Value, expected: &str) -> ApiError {
    let message = format!("{location} is {}, expected {expected}", kind(found));
    ApiError::field(location, "invalid_type", message)
}

/// A field that must be there and is not.
pub(crate) fn missing(location: &str) -> ApiError {
    ApiError::field(location, "missing_field", format!("{location} is missing"))
}

/// A field that no version of the API has, or this server does not know.
pub(crate) fn unknown(location: &str) -> ApiError {
    ApiError::field(
        location,
        "unknown_field",
        format!("the field {location} is not known to this server"),
    )
}
