//! Tools that an answer may call.

use serde_json::{Value, json};
use vispec::{CallCount, GrammarSource, ToolSignature};

use super::fields::{Fields, wrong};
use super::grammar::AskedGrammar;
use crate::api_error::ApiError;

/// Maximum number of tools per request, as in OpenAI's API.
const MAX_TOOLS: usize = 128;
/// Maximum length of a name, as in OpenAI's API.
const MAX_NAME: usize = 64;

/// The tools that an answer may call.
#[derive(Debug, Clone, Default)]
pub(super) struct AskedTools {
    /// The tools in the form that the chat template takes; empty if none may be called.
    pub(super) tools: Vec<Value>,
    calls: Calls,
}

#[derive(Debug, Clone, Default)]
enum Calls {
    #[default]
    None,
    /// The model decides.
    Free(Vec<ToolSignature>, CallCount),
    /// At least one.
    Required(Vec<ToolSignature>, CallCount),
}

impl AskedTools {
    /// Returns the grammar of the answer; `text` is the grammar of an answer without calls.
    ///
    /// # Errors
    /// Names the field of a Lark grammar, which cannot be combined with calls.
    pub(super) fn grammar(
        self,
        text: Option<AskedGrammar>,
    ) -> Result<Option<AskedGrammar>, ApiError> {
        match (self.calls, text) {
            (Calls::Required(tools, count), _) => Ok(Some(AskedGrammar {
                source: GrammarSource::ToolCalls { tools, count },
                field: "tools".to_owned(),
            })),
            (Calls::Free(tools, count), Some(AskedGrammar { source, field })) => {
                if matches!(source, GrammarSource::Lark(_)) {
                    let message = format!(
                        "{field} cannot be combined with tool calls; \
                         expected one of them, or tool_choice none"
                    );
                    return Err(ApiError::field(&field, "unsupported_value", message));
                }
                let text = Box::new(source);
                let source = GrammarSource::CallsOrText { tools, count, text };
                Ok(Some(AskedGrammar { source, field }))
            }
            (_, text) => Ok(text),
        }
    }
}

/// Reads `tools`, `tool_choice` and `parallel_tool_calls`.
///
/// # Errors
/// Names the field at fault.
pub(super) fn read(fields: &mut Fields, form: ToolForm) -> Result<AskedTools, ApiError> {
    let tools = match fields.value("tools") {
        None => Vec::new(),
        Some(Value::Array(items)) => signatures(items, form)?,
        Some(other) => return Err(wrong("tools", &other, "a list")),
    };
    let count = match fields.boolean("parallel_tool_calls")? {
        Some(false) => CallCount::One,
        Some(true) | None => CallCount::Some,
    };
    let signatures = |tools: &[Tool]| tools.iter().map(|tool| tool.signature.clone()).collect();
    let calls = match choice(fields, form)? {
        Choice::None => return Ok(AskedTools::default()),
        Choice::Auto if tools.is_empty() => Calls::None,
        Choice::Auto => Calls::Free(signatures(&tools), count),
        Choice::Required if tools.is_empty() => {
            return Err(ApiError::field(
                "tool_choice",
                "invalid_value",
                "tool_choice asks for a call, but there are no tools",
            ));
        }
        Choice::Required => Calls::Required(signatures(&tools), count),
        Choice::Named(name) => {
            let named = tools.iter().find(|tool| tool.signature.name == name);
            let named = named.ok_or_else(|| {
                let message = format!("tool_choice names {name:?}, which is not one of the tools");
                ApiError::field("tool_choice", "invalid_value", message)
            })?;
            Calls::Required(vec![named.signature.clone()], CallCount::One)
        }
    };
    Ok(AskedTools {
        tools: tools.into_iter().map(|tool| tool.shown).collect(),
        calls,
    })
}

/// How a request writes tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ToolForm {
    /// With an object `function`, as in chats.
    Nested,
    /// Without it, as in responses.
    Flat,
}

#[derive(Debug, Clone)]
struct Tool {
    /// The form that the chat template takes.
    shown: Value,
    signature: ToolSignature,
}

fn signatures(items: Vec<Value>, form: ToolForm) -> Result<Vec<Tool>, ApiError> {
    if items.len() > MAX_TOOLS {
        return Err(ApiError::field(
            "tools",
            "invalid_value",
            format!(
                "there are {} tools, expected at most {MAX_TOOLS}",
                items.len()
            ),
        ));
    }
    let mut tools: Vec<Tool> = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let (tool, location) = tool(&format!("tools[{index}]"), item, form)?;
        let name = &tool.signature.name;
        if tools.iter().any(|other| other.signature.name == *name) {
            let message = format!("{location} is {name:?}, which is also the name of another tool");
            return Err(ApiError::field(&location, "invalid_value", message));
        }
        tools.push(tool);
    }
    Ok(tools)
}

/// Reads a tool; also returns the location of its name.
fn tool(location: &str, item: Value, form: ToolForm) -> Result<(Tool, String), ApiError> {
    let mut fields = Fields::of(location, item)?;
    let at = fields.location("type");
    let kind = fields.required_string("type")?;
    if kind != "function" {
        let message = format!("{at} is {kind:?}, expected function");
        return Err(ApiError::field(&at, "unsupported_value", message));
    }
    let mut function = match form {
        ToolForm::Flat => fields,
        ToolForm::Nested => {
            let at = fields.location("function");
            let function = fields.object("function")?;
            fields.end()?;
            function.ok_or_else(|| super::fields::missing(&at))?
        }
    };
    let at = function.location("name");
    let name = function.required_string("name")?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(is_plain) {
        let message = format!(
            "{at} is {name:?}, expected 1 to {MAX_NAME} letters, digits, underscores, hyphens and \
             dots"
        );
        return Err(ApiError::field(&at, "invalid_value", message));
    }
    let description = function.string("description")?;
    let parameters_at = function.location("parameters");
    let parameters = match function.value("parameters") {
        None => None,
        Some(value @ Value::Object(_)) => Some(value),
        Some(other) => return Err(wrong(&parameters_at, &other, "a JSON schema")),
    };
    // Required calls always match the parameters.
    function.boolean("strict")?;
    function.end()?;
    let mut shown = json!({"name": name});
    if let Some(description) = description {
        shown["description"] = description.into();
    }
    let none = || json!({"type": "object", "properties": {}});
    shown["parameters"] = parameters.clone().unwrap_or_else(none);
    let tool = Tool {
        shown: json!({"type": "function", "function": shown}),
        signature: ToolSignature { name, parameters },
    };
    Ok((tool, at))
}

enum Choice {
    None,
    Auto,
    Required,
    Named(String),
}

fn choice(fields: &mut Fields, form: ToolForm) -> Result<Choice, ApiError> {
    let expected = "none, auto, required or the name of a function";
    let unsupported = |found: &str| {
        let message = format!("tool_choice is {found}, expected {expected}");
        ApiError::field("tool_choice", "unsupported_value", message)
    };
    let value = match fields.value("tool_choice") {
        None => return Ok(Choice::Auto),
        Some(value) => value,
    };
    if let Value::String(name) = &value {
        return match name.as_str() {
            "none" => Ok(Choice::None),
            "auto" => Ok(Choice::Auto),
            "required" => Ok(Choice::Required),
            other => Err(unsupported(&format!("{other:?}"))),
        };
    }
    let mut named = Fields::of("tool_choice", value)?;
    let kind = named.required_string("type")?;
    if kind != "function" {
        return Err(unsupported(&format!("of type {kind:?}")));
    }
    let mut function = match form {
        ToolForm::Flat => named,
        ToolForm::Nested => {
            let at = named.location("function");
            let function = named.object("function")?;
            named.end()?;
            function.ok_or_else(|| super::fields::missing(&at))?
        }
    };
    let name = function.required_string("name")?;
    function.end()?;
    Ok(Choice::Named(name))
}
