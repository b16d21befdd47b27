//! One row with named fields.

use serde_json::{Map, Value};

use crate::error::{DataError, Result, RowOrigin};

/// A row without its images.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) origin: RowOrigin,
    pub(crate) fields: Map<String, Value>,
}

impl Record {
    /// Returns whether a column exists and is neither null nor the empty string.
    pub(crate) fn has(&self, column: &str) -> bool {
        match self.fields.get(column) {
            None | Some(Value::Null) => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(_) => true,
        }
    }

    /// Returns a string unchanged, or a number or boolean as JSON text.
    ///
    /// # Errors
    /// [`DataError::Field`] if the column is missing, null, a list or an object.
    pub(crate) fn text(&self, column: &str) -> Result<String> {
        match self.fields.get(column) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(Value::Number(number)) => Ok(number.to_string()),
            Some(Value::Bool(value)) => Ok(value.to_string()),
            other => Err(self.wrong(column, other, "a string or a number")),
        }
    }

    /// Returns a list of strings with at least one element.
    ///
    /// # Errors
    /// [`DataError::Field`] if the column is anything else.
    pub(crate) fn texts(&self, column: &str) -> Result<Vec<String>> {
        const EXPECTED: &str = "a list of one or more strings";
        let value = self.fields.get(column);
        let Some(Value::Array(items)) = value else {
            return Err(self.wrong(column, value, EXPECTED));
        };
        if items.is_empty() {
            return Err(self.wrong(column, value, EXPECTED));
        }
        let texts = items.iter().map(|item| match item {
            Value::String(text) => Ok(text.clone()),
            other => Err(self.wrong(column, Some(other), EXPECTED)),
        });
        texts.collect()
    }

    fn wrong(&self, column: &str, found: Option<&Value>, expected: &'static str) -> DataError {
        let found = match found {
            None => "missing",
            Some(Value::Null) => "null",
            Some(Value::Bool(_)) => "a boolean",
            Some(Value::Number(_)) => "a number",
            Some(Value::String(_)) => "a string",
            Some(Value::Array(items)) if items.is_empty() => "an empty list",
            Some(Value::Array(_)) => "a list",
            Some(Value::Object(_)) => "an object",
        };
        DataError::Field {
            origin: self.origin.clone(),
            field: column.to_owned(),
            found: found.to_owned(),
            expected,
        }
    }
}
