//! The messages of a chat and the images in them.

use serde_json::Value;
use vispec_processor::{Content, Message, Messages, Part};

use super::fields::{Fields, missing, wrong};
use super::image_url;
use crate::api_error::ApiError;
use crate::limits::RequestLimits;
use crate::model::AnswerPrompt;

/// Fields of a message that clients send along and that say nothing as long as they are empty.
const EMPTY_FIELDS: &[&str] = &[
    "name",
    "refusal",
    "annotations",
    "audio",
    "tool_calls",
    "tool_call_id",
    "function_call",
];

/// Reads the messages.
///
/// # Errors
/// Naming the message and the field at fault.
pub(super) fn prompt(
    fields: &mut Fields,
    limits: &RequestLimits,
) -> Result<AnswerPrompt, ApiError> {
    let mut images = Vec::new();
    let mut messages = Vec::new();
    for (index, item) in fields.required_list("messages")?.into_iter().enumerate() {
        messages.push(message(&format!("messages[{index}]"), item, &mut images)?);
        if images.len() > limits.max_images {
            return Err(ApiError::field(
                "messages",
                "too_many_images",
                format!(
                    "the messages have more than the limit of {} images",
                    limits.max_images
                ),
            ));
        }
    }
    let messages = Messages::new(messages)
        .map_err(|error| ApiError::field("messages", "invalid_value", error.to_string()))?;
    Ok(AnswerPrompt::Chat { messages, images })
}

fn message(location: &str, item: Value, images: &mut Vec<Vec<u8>>) -> Result<Message, ApiError> {
    let mut fields = Fields::of(location, item)?;
    let role = match fields.required_string("role")?.as_str() {
        // The newer name of the same role.
        "system" | "developer" => "system",
        "user" => "user",
        "assistant" => "assistant",
        other => {
            let location = fields.location("role");
            return Err(ApiError::field(
                &location,
                "unsupported_value",
                format!("{location} is {other:?}, expected system, developer, user or assistant"),
            ));
        }
    };
    let at = fields.location("content");
    let content = match fields.value("content") {
        Some(Value::String(text)) => Content::Text(text),
        Some(Value::Array(items)) => {
            let parts = items.into_iter().enumerate();
            let parts = parts.map(|(index, item)| part(&format!("{at}[{index}]"), item, images));
            Content::Parts(parts.collect::<Result<_, _>>()?)
        }
        Some(other) => return Err(wrong(&at, &other, "a string or a list of parts")),
        None => return Err(missing(&at)),
    };
    for &name in EMPTY_FIELDS {
        match fields.value(name) {
            None => {}
            Some(Value::Array(items)) if items.is_empty() => {}
            Some(_) => {
                let location = fields.location(name);
                let message = format!("{location} is not supported by this server");
                return Err(ApiError::field(&location, "unsupported_value", message));
            }
        }
    }
    fields.end()?;
    Ok(Message {
        role: role.to_owned(),
        content,
    })
}

fn part(location: &str, item: Value, images: &mut Vec<Vec<u8>>) -> Result<Part, ApiError> {
    let mut fields = Fields::of(location, item)?;
    let part = match fields.required_string("type")?.as_str() {
        "text" => Part::Text(fields.required_string("text")?),
        "image_url" => {
            let at = fields.location("image_url");
            // Some clients send the address itself.
            let image = match fields.value("image_url") {
                None => return Err(missing(&at)),
                Some(Value::String(url)) => image_url::bytes(&at, &url)?,
                Some(other) => image(&at, other)?,
            };
            images.push(image);
            Part::Image
        }
        other => {
            let at = fields.location("type");
            return Err(ApiError::field(
                &at,
                "unsupported_value",
                format!("{at} is {other:?}, expected text or image_url"),
            ));
        }
    };
    fields.end()?;
    Ok(part)
}

fn image(location: &str, value: Value) -> Result<Vec<u8>, ApiError> {
    let mut fields = Fields::of(location, value)?;
    let at = fields.location("url");
    let bytes = image_url::bytes(&at, &fields.required_string("url")?)?;
    // The checkpoint's own preprocessor config decides how large an image becomes.
    if let Some(detail) = fields.string("detail")?.filter(|detail| detail != "auto") {
        let at = fields.location("detail");
        return Err(ApiError::field(
            &at,
            "unsupported_value",
            format!("{at} is {detail:?}, expected auto"),
        ));
    }
    fields.end()?;
    Ok(bytes)
}
