//! What grammars are made of.

use serde_json::{Map, Value, json};

use crate::error::GrammarError;

/// Longest grammar in bytes, a schema as JSON; OpenAI allows schemas of about this size.
const MAX_BYTES: usize = 128 << 10;

/// What an answer has to be.
#[derive(Clone, PartialEq, Debug)]
pub enum GrammarSource {
    /// Any JSON object.
    JsonObject,
    /// JSON by a schema.
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
}

/// How a tool is called.
#[derive(Clone, PartialEq, Debug)]
pub struct ToolSignature {
    /// Its name.
    pub name: String,
    /// The schema of its arguments; any object if there is none.
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
            Self::JsonObject => format!("start: {}", json_rule(&json!({"type": "object"}))),
            Self::JsonSchema(schema) => format!("start: {}", json_rule(schema)),
            Self::Regex(regex) => {
                format!("start: /{}/", llguidance::regex_to_lark(regex, ""))
            }
            Self::Choice(choices) if choices.is_empty() => {
                return Err(GrammarError::Invalid {
                    reason: "there is nothing to choose from".to_owned(),
                });
            }
            Self::Choice(choices) => {
                let choices = choices
                    .iter()
                    .map(|choice| Value::from(&**choice).to_string());
                format!("start: {}", Vec::from_iter(choices).join(" | "))
            }
            Self::Lark(grammar) => grammar.clone(),
            Self::ToolCalls { tools, count } => tool_calls(tools, *count),
        };
        if lark.len() > MAX_BYTES {
            return Err(GrammarError::TooLong {
                bytes: lark.len(),
                limit: MAX_BYTES,
            });
        }
        Ok(lark)
    }
}

fn tool_calls(tools: &[ToolSignature], count: CallCount) -> String {
    let more = match count {
        CallCount::One => "",
        CallCount::Some => r#" ("\n" call)*"#,
    };
    let calls = tools.iter().map(|tool| {
        let any = || json!({"type": "object"});
        // By itself, so that references within the schema start at its own root.
        let arguments = json_rule(&tool.parameters.clone().unwrap_or_else(any));
        let name = Value::from(&*tool.name);
        let opening = Value::from(format!("<tool_call>\n{{\"name\": {name}, \"arguments\": "));
        format!(r#"{opening} ({arguments}) "}}\n</tool_call>""#)
    });
    let calls = Vec::from_iter(calls).join("\n    | ");
    format!("start: call{more}\ncall: {calls}")
}

/// JSON in one line and with one way to separate, so that what is between values is known before
/// the target says it.
fn json_rule(schema: &Value) -> String {
    let layout = json!({
        "item_separator": ", ",
        "key_separator": ": ",
        "whitespace_flexible": false,
    });
    let schema = match schema {
        Value::Object(fields) => {
            let mut fields = fields.clone();
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
