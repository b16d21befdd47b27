//! The messages of a chat and the images in them.

use serde_json::Value;
use vispec::{AnswerPrompt, ImageInput};
use vispec_processor::{Content, Message, Messages, Part};

use super::RemotePolicy;
use super::fields::{Fields, missing, wrong};
use super::image_url::{self, ImageSource};
use crate::api_error::ApiError;
use crate::limits::RequestLimits;
use crate::remote_image::RemoteImage;

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

/// The images of a chat as they are read.
struct Images {
    sources: Vec<ImageSource>,
    remote: RemotePolicy,
}

impl Images {
    fn push(&mut self, location: &str, url: &str) -> Result<(), ApiError> {
        self.sources
            .push(image_url::read(location, url, self.remote)?);
        Ok(())
    }
}

/// Reads the messages; images that have to be fetched leave their places empty and are given by
/// place.
///
/// # Errors
/// Naming the message and the field at fault.
pub(super) fn prompt(
    fields: &mut Fields,
    limits: &RequestLimits,
    remote: RemotePolicy,
) -> Result<(AnswerPrompt, Vec<(usize, RemoteImage)>), ApiError> {
    let mut images = Images {
        sources: Vec::new(),
        remote,
    };
    let mut messages = Vec::new();
    for (index, item) in fields.required_list("messages")?.into_iter().enumerate() {
        messages.push(message(&format!("messages[{index}]"), item, &mut images)?);
        if images.sources.len() > limits.max_images {
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
    let mut remote = Vec::new();
    let sources = images.sources.into_iter().enumerate();
    let images = sources.map(|(place, source)| match source {
        ImageSource::Here(file) => ImageInput::File(file),
        ImageSource::Remote(image) => {
            remote.push((place, image));
            ImageInput::File(Vec::new())
        }
    });
    let images = images.collect();
    Ok((AnswerPrompt::Chat { messages, images }, remote))
}

fn message(location: &str, item: Value, images: &mut Images) -> Result<Message, ApiError> {
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

fn part(location: &str, item: Value, images: &mut Images) -> Result<Part, ApiError> {
    let mut fields = Fields::of(location, item)?;
    let part = match fields.required_string("type")?.as_str() {
        "text" => Part::Text(fields.required_string("text")?),
        "image_url" => {
            let at = fields.location("image_url");
            // Some clients send the address itself.
            match fields.value("image_url") {
                None => return Err(missing(&at)),
                Some(Value::String(url)) => images.push(&at, &url)?,
                Some(other) => image(&at, other, images)?,
            }
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

fn image(location: &str, value: Value, images: &mut Images) -> Result<(), ApiError> {
    let mut fields = Fields::of(location, value)?;
    let at = fields.location("url");
    images.push(&at, &fields.required_string("url")?)?;
    // The checkpoint's own preprocessor config decides how large an image becomes.
    if let Some(detail) = fields.string("detail")?.filter(|detail| detail != "auto") {
        let at = fields.location("detail");
        return Err(ApiError::field(
            &at,
            "unsupported_value",
            format!("{at} is {detail:?}, expected auto"),
        ));
    }
    fields.end()
}
