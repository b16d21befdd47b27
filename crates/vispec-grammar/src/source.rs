//! What grammars are made of.

use serde_json::{Map, Value, json};

use crate::closing::close_objects;
use crate::error::GrammarError;

/// Longest grammar in bytes, a schema as JSON; OpenAI allows schemas of about this size.
const MAX_BYTES: usize = 128 << 10;

/// What an answer has to be.
#[derive(Clone, PartialEq, Debug)]
pub enum GrammarSource {
    /// Any JSON object.
    JsonObject,
    /// JSON by a schema. Objects have no properties beside those that it lists, unless it says
    /// otherwise or puts schemas together so that one does not know of the properties of another.
    JsonSchema(Value),
    /// Text that a regular expression matches from its first to its last character.
    Regex(String),
    /// One of these texts.
    Choice(Vec<String>),
    /// Text by a grammar in Lark's syntax, as `llguidance` reads it.
    Lark(String),
    /// Calls of tools as models of the Hermes and Qwen families write them:
    /// `<tool_call>`, a JSON object with `name` and `arguments`, `</tool_call>`.
    ToolCalls {
        /// Tools that may be called.
        tools: Vec<ToolSignature>,
        /// How many calls.
        count: CallCount,
    },
    /// Either such calls or text by another grammar, which neither has rules of its own
    /// ([`Lark`](Self::Lark)) nor calls.
    CallsOrText {
        /// Tools that may be called.
        tools: Vec<ToolSignature>,
        /// How many calls.
        count: CallCount,
        /// What the text has to be.
        text: Box<GrammarSource>,
    },
}

/// How a tool is called.
#[derive(Clone, PartialEq, Debug)]
pub struct ToolSignature {
    /// Its name.
    pub name: String,
    /// The schema of its arguments; without one it takes none.
    pub parameters: Option<Value>,
}

/// How many calls there have to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CallCount {
    /// One.
    One,
    /// One or more.
    Some,
}

impl GrammarSource {
    /// The grammar in Lark's syntax.
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

    /// What stands on the right of a rule for it, if that is all that it takes.
    pub(crate) fn expression(&self) -> Result<String, GrammarError> {
        let invalid = |reason: &str| GrammarError::Invalid {
            reason: reason.to_owned(),
        };
        match self {
            Self::JsonObject => Ok(json_rule(&json!({"type": "object"}))),
            Self::JsonSchema(schema) => Ok(json_rule(schema)),
            Self::Regex(regex) => Ok(format!("/{}/", llguidance::regex_to_lark(regex, ""))),
            Self::Choice(choices) if choices.is_empty() => {
                Err(invalid("there is nothing to choose from"))
            }
            Self::Choice(choices) => {
                let choices = choices
                    .iter()
                    .map(|choice| Value::from(&**choice).to_string());
                Ok(Vec::from_iter(choices).join(" | "))
            }
            Self::Lark(_) | Self::ToolCalls { .. } | Self::CallsOrText { .. } => Err(invalid(
                "a grammar with rules of its own, or with calls, cannot be the text beside calls",
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
        // By itself, so that references within the schema start at its own root.
        let arguments = json_rule(&tool.parameters.clone().unwrap_or_else(none));
        let name = Value::from(&*tool.name);
        let opening = Value::from(format!("<tool_call>\n{{\"name\": {name}, \"arguments\": "));
        format!(r#"{opening} ({arguments}) "}}\n</tool_call>""#)
    });
    let calls = Vec::from_iter(calls).join("\n    | ");
    format!("calls: call{more}\ncall: {calls}")
}

/// JSON in one line and with one way to separate, so that what is between values is known before
/// the target says it.
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
