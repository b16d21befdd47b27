//! The required format of an answer: OpenAI's `response_format`, and vLLM's additional fields.

use serde_json::Value;
use vispec::GrammarSource;

use super::fields::{Fields, missing, wrong};
use crate::api_error::ApiError;

/// Maximum number of strings to choose from.
const MAX_CHOICES: usize = 1024;

/// A grammar, and the field that contains it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct AskedGrammar {
    /// The grammar that the answer must follow.
    pub(crate) source: GrammarSource,
    /// Location of the grammar in the request.
    pub(crate) field: String,
}

/// Reads the grammar from whichever field contains it.
///
/// # Errors
/// Names the field at fault, or two fields that both contain one.
pub(super) fn read(fields: &mut Fields) -> Result<Option<AskedGrammar>, ApiError> {
    let mut found = Vec::new();
    let response_format = fields.object("response_format")?;
    found.extend(
        response_format
            .map(response_format_of)
            .transpose()?
            .flatten(),
    );
    for (name, read) in GUIDED {
        if let Some(value) = fields.value(&format!("guided_{name}")) {
            found.push(guided(format!("guided_{name}"), value, read)?);
        }
    }
    if let Some(mut outputs) = fields.object("structured_outputs")? {
        for (name, read) in GUIDED {
            if let Some(value) = outputs.value(name) {
                found.push(guided(outputs.location(name), value, read)?);
            }
        }
        if outputs.boolean("json_object")? == Some(true) {
            found.push(AskedGrammar {
                source: GrammarSource::JsonObject,
                field: outputs.location("json_object"),
            });
        }
        outputs.end()?;
    }
    if let [first, second, ..] = &*found {
        return Err(ApiError::field(
            &second.field,
            "invalid_value",
            format!(
                "{} and {} both define the format of the answer, expected only one of them",
                first.field, second.field
            ),
        ));
    }
    Ok(found.pop())
}

type Reader = fn(&str, Value) -> Result<GrammarSource, ApiError>;

/// vLLM's fields, prefixed with `guided_` or within `structured_outputs`.
const GUIDED: [(&str, Reader); 4] = [
    ("json", schema_or_text),
    ("regex", |at, value| {
        text(at, value).map(GrammarSource::Regex)
    }),
    ("choice", choice),
    ("grammar", |at, value| {
        text(at, value).map(GrammarSource::Lark)
    }),
];

fn guided(field: String, value: Value, read: Reader) -> Result<AskedGrammar, ApiError> {
    Ok(AskedGrammar {
        source: read(&field, value)?,
        field,
    })
}

fn response_format_of(mut fields: Fields) -> Result<Option<AskedGrammar>, ApiError> {
    let at = fields.location("type");
    let source = match fields.required_string("type")?.as_str() {
        "text" => None,
        "json_object" => Some(GrammarSource::JsonObject),
        "json_schema" => {
            let at = fields.location("json_schema");
            let named = fields.object("json_schema")?;
            Some(named_schema(named.ok_or_else(|| missing(&at))?)?)
        }
        other => {
            return Err(ApiError::field(
                &at,
                "unsupported_value",
                format!("{at} is {other:?}, expected text, json_object or json_schema"),
            ));
        }
    };
    fields.end()?;
    Ok(source.map(|source| asked(source, "response_format")))
}

/// Reads the field `text.format` of `/v1/responses`.
///
/// # Errors
/// Names the field at fault.
pub(super) fn read_text(fields: &mut Fields) -> Result<Option<AskedGrammar>, ApiError> {
    let Some(mut text) = fields.object("text")? else {
        return Ok(None);
    };
    let format = text.object("format")?;
    text.end()?;
    let Some(mut format) = format else {
        return Ok(None);
    };
    let at = format.location("type");
    let source = match format.required_string("type")?.as_str() {
        "text" => None,
        "json_object" => Some(GrammarSource::JsonObject),
        "json_schema" => {
            return named_schema(format).map(|source| Some(asked(source, "text.format")));
        }
        other => {
            return Err(ApiError::field(
                &at,
                "unsupported_value",
                format!("{at} is {other:?}, expected text, json_object or json_schema"),
            ));
        }
    };
    format.end()?;
    Ok(source.map(|source| asked(source, "text.format")))
}

fn asked(source: GrammarSource, field: &str) -> AskedGrammar {
    AskedGrammar {
        source,
        field: field.to_owned(),
    }
}

/// Reads a named schema. The name has no effect here, and `strict` does not matter: answers always
/// match the schema.
fn named_schema(mut fields: Fields) -> Result<GrammarSource, ApiError> {
    fields.required_string("name")?;
    fields.string("description")?;
    fields.boolean("strict")?;
    let at = fields.location("schema");
    let source = match fields.value("schema") {
        Some(value) => schema(&at, value)?,
        None => return Err(missing(&at)),
    };
    fields.end()?;
    Ok(source)
}

fn schema(at: &str, value: Value) -> Result<GrammarSource, ApiError> {
    match value {
        Value::Object(_) => Ok(GrammarSource::JsonSchema(value)),
        other => Err(wrong(at, &other, "a JSON schema")),
    }
}

fn schema_or_text(at: &str, value: Value) -> Result<GrammarSource, ApiError> {
    let Value::String(text) = value else {
        return schema(at, value);
    };
    let value = serde_json::from_str(&text).map_err(|error| {
        let message = format!("{at} is not JSON: {error}");
        ApiError::field(at, "invalid_value", message)
    })?;
    schema(at, value)
}

fn text(at: &str, value: Value) -> Result<String, ApiError> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(wrong(at, &other, "a string")),
    }
}

fn choice(at: &str, value: Value) -> Result<GrammarSource, ApiError> {
    let Value::Array(items) = value else {
        return Err(wrong(at, &value, "a list of strings"));
    };
    if !(1..=MAX_CHOICES).contains(&items.len()) {
        return Err(ApiError::field(
            at,
            "invalid_value",
            format!(
                "{at} has {} strings, expected 1 to {MAX_CHOICES}",
                items.len()
            ),
        ));
    }
    let items = items.into_iter().map(|item| text(at, item));
    Ok(GrammarSource::Choice(items.collect::<Result<_, _>>()?))
}
