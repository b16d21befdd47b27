//! Sources of grammars.

use serde_json::{Map, Value, json};

use crate::closing::close_objects;
use crate::error::GrammarError;

/// Maximum length of a grammar in bytes, where a schema is counted as JSON. OpenAI allows schemas
/// of about this size.
const MAX_BYTES: usize = 128 << 10;

/// The required form of an answer.
#[derive(Clone, PartialEq, Debug)]
pub enum GrammarSource {
    /// Any JSON object.
    JsonObject,
    /// JSON that follows a schema. Objects have only the listed properties, unless the schema
    /// specifies otherwise or combines subschemas so that one does not know the properties of
    /// another.
    JsonSchema(Value),
    /// Text that a regular expression matches completely.
    Regex(String),
    /// Must equal one of these strings.
    Choice(Vec<String>),
    /// Text that follows a grammar in the Lark syntax of `llguidance`.
    Lark(String),
    /// Tool calls in the format of the Hermes and Qwen models:
    /// `<tool_call>`, a JSON object with `name` and `arguments`, `</tool_call>`.
    ToolCalls {
        /// Tools that may be called.
        tools: Vec<ToolSignature>,
        /// Number of calls.
        count: CallCount,
    },
    /// Either such calls or text that follows another grammar, which must have neither its own
    /// rules ([`Lark`](Self::Lark)) nor calls.
    CallsOrText {
        /// Tools that may be called.
        tools: Vec<ToolSignature>,
        /// Number of calls.
        count: CallCount,
        /// Required form of the text.
        text: Box<GrammarSource>,
    },
}

/// Name and parameters of a tool.
#[derive(Clone, PartialEq, Debug)]
pub struct ToolSignature {
    /// Name of the tool.
    pub name: String,
    /// Schema of its arguments; without a schema it takes none.
    pub parameters: Option<Value>,
}

/// Required number of calls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallCount {
    /// Exactly one.
    One,
    /// At least one.
    Some,
}

impl GrammarSource {
    /// Returns the grammar in Lark syntax.
    pub(crate) fn lark(&self) -> Result<String, GrammarError> {
        let lark = match self {
            Self::Lark(grammar) => grammar.clone(),
            Self::ToolCalls { tools, count } => {
                format!("start: calls\n{}", call_rules(tools, *count))
            }
            Self::CallsOrText { tools, count, text } => {
                let text = text.expression()?;
                let calls = call_rules(tools, *count);
                format!("start: calls | text\ntext: {text}\n{calls}")
            }
            Self::JsonObject | Self::JsonSchema(_) | Self::Regex(_) | Self::Choice(_) => {
                format!("start: {}", self.expression()?)
            }
        };
        if lark.len() > MAX_BYTES {
            return Err(GrammarError::TooLong {
                bytes: lark.len(),
                limit: MAX_BYTES,
            });
        }
        Ok(lark)
    }

    /// Returns the right-hand side of a rule for the source, if a single rule is sufficient.
    pub(crate) fn expression(&self) -> Result<String, GrammarError> {
        let invalid = |reason: &str| GrammarError::Invalid {
            reason: reason.to_owned(),
        };
        match self {
            Self::JsonObject => Ok(json_rule(&json!({"type": "object"}))),
            Self::JsonSchema(schema) => Ok(json_rule(schema)),
            Self::Regex(regex) => Ok(format!("/{}/", llguidance::regex_to_lark(regex, ""))),
            Self::Choice(choices) if choices.is_empty() => {
                Err(invalid("the list of choices is empty"))
            }
            Self::Choice(choices) => {
                let choices = choices
                    .iter()
                    .map(|choice| Value::from(&**choice).to_string());
                Ok(Vec::from_iter(choices).join(" | "))
            }
            Self::Lark(_) | Self::ToolCalls { .. } | Self::CallsOrText { .. } => Err(invalid(
                "a grammar with its own rules or with calls cannot be the alternative to calls",
            )),
        }
    }
}

fn call_rules(tools: &[ToolSignature], count: CallCount) -> String {
    let more = match count {
        CallCount::One => "",
        CallCount::Some => r#" ("\n" call)*"#,
    };
    let calls = tools.iter().map(|tool| {
        let none = || json!({"type": "object", "properties": {}});
        // A separate `%json`, so that references within the schema start at its own root.
        let arguments = json_rule(&tool.parameters.clone().unwrap_or_else(none));
        let name = Value::from(&*tool.name);
        let opening = Value::from(format!("<tool_call>\n{{\"name\": {name}, \"arguments\": "));
        format!(r#"{opening} ({arguments}) "}}\n</tool_call>""#)
    });
    let calls = Vec::from_iter(calls).join("\n    | ");
    format!("calls: call{more}\ncall: {calls}")
}

/// Returns a rule for JSON on one line with fixed separators, so that the tokens between values are
/// known before the target emits them.
fn json_rule(schema: &Value) -> String {
    let layout = json!({
        "item_separator": ", ",
        "key_separator": ": ",
        "whitespace_flexible": false,
    });
    let mut schema = schema.clone();
    close_objects(&mut schema);
    let schema = match schema {
        Value::Object(mut fields) => {
            fields.insert("x-guidance".to_owned(), layout);
            Value::Object(fields)
        }
        // `true` and `false` are schemas, too.
        other => {
            let fields = [("allOf", json!([other])), ("x-guidance", layout)];
            let fields = fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value));
            Value::Object(Map::from_iter(fields))
        }
    };
    format!("%json {schema}")
}
