//! Requests to `/v1/responses`: the items of their input are read as the corresponding chat
//! messages.

use serde_json::{Map, Value, json};
use vispec::AnswerRequest;

use super::chat::{self, Placed};
use super::fields::{Fields, missing, wrong};
use super::settings::{RESPONSE_NAMES, Settings};
use super::tools::{self, ToolForm};
use super::{Calls, Delivery, DeliveryMode, Extension, ParsedRequest, RequestRules, Strictness};
use super::{check_model, grammar, lenient, neutral, speculation, with_tools};
use crate::api_error::ApiError;
use crate::response_store::ResponseStore;

/// A valid request.
#[derive(Debug)]
pub(crate) struct ParsedResponse {
    /// The request to the model.
    pub(crate) asked: ParsedRequest,
    /// Request fields that the response repeats.
    pub(crate) repeated: Map<String, Value>,
    /// The conversation up to the answer, as chat messages, if it is to be kept.
    pub(crate) conversation: Option<Vec<Value>>,
}

impl ParsedResponse {
    /// Reads the body of a request, which may continue from a response in `store`; also returns the
    /// paths of omitted fields.
    ///
    /// # Errors
    /// Status 400, or 404 for another model; the error names the field at fault.
    pub(crate) fn read_by_rules(
        body: &[u8],
        rules: RequestRules<'_>,
        store: &ResponseStore,
    ) -> Result<(Self, Vec<String>), ApiError> {
        let read = |body: &[u8]| Self::read(body, rules, store);
        match rules.strictness {
            Strictness::Strict => Ok((read(body)?, Vec::new())),
            Strictness::Lenient => lenient::read(body, read),
        }
    }

    fn read(body: &[u8], rules: RequestRules<'_>, store: &ResponseStore) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        let repeated = repeated(&fields);
        check_model(&mut fields, rules.model_id)?;
        let mut conversation = previous(&mut fields, store)?;
        conversation.extend(input(&mut fields)?);
        let instructions = fields.string("instructions")?;
        let instructions = instructions.map(|text| {
            let message = json!({"role": "system", "content": text});
            ("instructions".to_owned(), message)
        });
        let messages = instructions.into_iter().chain(conversation.iter().cloned());
        let (prompt, remote) = chat::read(messages, "input", rules.limits, rules.remote)?;
        let settings = Settings::read(&mut fields, RESPONSE_NAMES, rules.defaults, rules.limits)?;
        let asked = grammar::read_text(&mut fields)?;
        let tools = tools::read(&mut fields, ToolForm::Flat)?;
        let calls = if tools.tools.is_empty() {
            Calls::Text
        } else {
            Calls::Told
        };
        let (prompt, asked) = with_tools(prompt, asked, tools)?;
        if let Some(asked) = &asked {
            settings.check_end(&asked.field)?;
        }
        let speculation = speculation(&mut fields)?;
        let stream = fields.boolean("stream")?.unwrap_or(false);
        let store = fields.boolean("store")?.unwrap_or(true);
        neutral::check_rest(fields)?;
        let (grammar, grammar_field) = asked.map(|asked| (asked.source, asked.field)).unzip();
        let conversation = conversation.into_iter().map(|(_, message)| message);
        Ok(Self {
            asked: ParsedRequest {
                answer: AnswerRequest {
                    grammar,
                    ..settings.request(prompt)
                },
                remote,
                grammar_field,
                choices: 1,
                speculation,
                delivery: Delivery {
                    mode: if stream {
                        DeliveryMode::Stream
                    } else {
                        DeliveryMode::Whole
                    },
                    extension: Extension::None,
                    calls,
                },
            },
            repeated,
            conversation: store.then(|| conversation.collect()),
        })
    }
}

/// Returns the fields that a response repeats, with defaults for absent ones.
fn repeated(fields: &Fields) -> Map<String, Value> {
    let defaults = json!({
        "instructions": null, "max_output_tokens": null, "metadata": {},
        "parallel_tool_calls": true, "previous_response_id": null, "store": true,
        "temperature": null, "text": {"format": {"type": "text"}}, "tool_choice": "auto",
        "tools": [], "top_p": null, "truncation": "disabled", "user": null,
    });
    let Value::Object(mut repeated) = defaults else {
        return Map::new();
    };
    for (name, value) in &mut repeated {
        if let Some(found) = fields.peek(name) {
            *value = found.clone();
        }
    }
    repeated
}

/// Returns the messages up to the response that the request continues from.
fn previous(fields: &mut Fields, store: &ResponseStore) -> Result<Vec<Placed>, ApiError> {
    let name = "previous_response_id";
    let Some(id) = fields.string(name)? else {
        return Ok(Vec::new());
    };
    let messages = store.get(&id).ok_or_else(|| {
        let message = format!(
            "the response {id:?} is unknown: it was not stored, it belongs to another server or an \
             earlier run, or it was dropped to make room; send the whole conversation as input"
        );
        ApiError::field(name, "previous_response_not_found", message)
    })?;
    let placed = messages
        .iter()
        .map(|message| (name.to_owned(), message.clone()));
    Ok(placed.collect())
}

/// Returns the input as chat messages, each with its location.
fn input(fields: &mut Fields) -> Result<Vec<Placed>, ApiError> {
    let items = match fields.value("input") {
        None => return Err(missing("input")),
        Some(Value::String(text)) => {
            let message = json!({"role": "user", "content": text});
            return Ok(vec![("input".to_owned(), message)]);
        }
        Some(Value::Array(items)) => items,
        Some(other) => return Err(wrong("input", &other, "a string or a list of items")),
    };
    let mut messages: Vec<Placed> = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let location = format!("input[{index}]");
        let message = message(&location, item)?;
        // Consecutive calls form one message.
        let last = messages.last_mut().map(|(_, last)| &mut last["tool_calls"]);
        match (last, &message["tool_calls"]) {
            (Some(Value::Array(calls)), Value::Array(more)) => calls.extend(more.iter().cloned()),
            _ => messages.push((location, message)),
        }
    }
    Ok(messages)
}

fn message(location: &str, item: Value) -> Result<Value, ApiError> {
    let mut fields = Fields::of(location, item)?;
    let at = fields.location("type");
    let kind = fields.string("type")?;
    // Clients send back these fields.
    fields.string("id")?;
    fields.string("status")?;
    let message = match kind.as_deref().unwrap_or("message") {
        "message" => {
            let role = fields.required_string("role")?;
            let at = fields.location("content");
            let content = match fields.value("content") {
                None => return Err(missing(&at)),
                Some(content) => content_of(&at, content)?,
            };
            json!({"role": role, "content": content})
        }
        "function_call" => {
            let call = json!({
                "id": fields.required_string("call_id")?,
                "type": "function",
                "function": {
                    "name": fields.required_string("name")?,
                    "arguments": fields.required_string("arguments")?,
                },
            });
            json!({"role": "assistant", "tool_calls": [call]})
        }
        "function_call_output" => {
            let id = fields.required_string("call_id")?;
            let at = fields.location("output");
            let output = match fields.value("output") {
                None => return Err(missing(&at)),
                Some(output) => content_of(&at, output)?,
            };
            json!({"role": "tool", "tool_call_id": id, "content": output})
        }
        other => {
            let message = format!(
                "{at} is {other:?}, expected message, function_call or function_call_output"
            );
            return Err(ApiError::field(&at, "unsupported_value", message));
        }
    };
    fields.end()?;
    Ok(message)
}

fn content_of(location: &str, content: Value) -> Result<Value, ApiError> {
    let Value::Array(items) = content else {
        // Strings are kept as they are; the message reader reports errors in other types.
        return Ok(content);
    };
    let parts = items.into_iter().enumerate();
    let parts = parts.map(|(index, item)| part(&format!("{location}[{index}]"), item));
    parts.collect()
}

fn part(location: &str, item: Value) -> Result<Value, ApiError> {
    let mut fields = Fields::of(location, item)?;
    let at = fields.location("type");
    let part = match fields.required_string("type")?.as_str() {
        "input_text" | "output_text" | "text" => {
            fields.value("annotations");
            fields.value("logprobs");
            json!({"type": "text", "text": fields.required_string("text")?})
        }
        "input_image" => {
            let url = fields.required_string("image_url")?;
            json!({"type": "image_url", "image_url": {
                "url": url,
                "detail": fields.string("detail")?,
            }})
        }
        // OpenAI's API has no videos; the name follows that of images, the fields those of chats.
        "input_video" => {
            let at = fields.location("video_url");
            let video = fields.value("video_url").ok_or_else(|| missing(&at))?;
            json!({"type": "video_url", "video_url": video})
        }
        other => {
            let message =
                format!("{at} is {other:?}, expected input_text, input_image or input_video");
            return Err(ApiError::field(&at, "unsupported_value", message));
        }
    };
    fields.end()?;
    Ok(part)
}
