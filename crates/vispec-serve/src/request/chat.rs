//! The messages of a chat, and the images and videos in them.

use std::collections::HashSet;

use serde_json::Value;
use vispec::{AnswerPrompt, ImageInput, VideoInput};
use vispec_processor::{Content, Message, Messages, Part, ToolCall};

use super::RemotePolicy;
use super::fields::{Fields, missing, wrong};
use super::image_url::{self, ImageSource};
use super::video_url;
use crate::api_error::ApiError;
use crate::limits::RequestLimits;
use crate::remote_image::RemoteImage;

/// Fields of a message that clients may send and that have no effect as long as they are empty.
const EMPTY_FIELDS: &[&str] = &["name", "refusal", "annotations", "audio", "function_call"];

/// Images and videos of a chat that is being read.
struct Shown {
    images: Vec<ImageSource>,
    videos: Vec<VideoInput>,
    remote: RemotePolicy,
    /// Number of frames that further videos may have.
    frames_left: usize,
}

impl Shown {
    fn image(&mut self, location: &str, url: &str) -> Result<(), ApiError> {
        self.images
            .push(image_url::read(location, url, self.remote)?);
        Ok(())
    }

    fn video(
        &mut self,
        read: impl FnOnce(usize) -> Result<VideoInput, ApiError>,
    ) -> Result<(), ApiError> {
        let video = read(self.frames_left)?;
        if let VideoInput::Frames { files, .. } = &video {
            self.frames_left -= files.len();
        }
        self.videos.push(video);
        Ok(())
    }

    /// Fails if the chat has more images or videos than allowed.
    fn check(&self, name: &str, limits: &RequestLimits) -> Result<(), ApiError> {
        for (found, most, code, what) in [
            (
                self.images.len(),
                limits.max_images,
                "too_many_images",
                "images",
            ),
            (
                self.videos.len(),
                limits.max_videos,
                "too_many_videos",
                "videos",
            ),
        ] {
            if found > most {
                let message = format!("the messages have more than the limit of {most} {what}");
                return Err(ApiError::field(name, code, message));
            }
        }
        Ok(())
    }
}

/// Reads the messages. Images to be fetched leave their places empty and are returned with these
/// places.
///
/// # Errors
/// Names the message and the field at fault.
pub(super) fn prompt(
    fields: &mut Fields,
    limits: &RequestLimits,
    remote: RemotePolicy,
) -> Result<(AnswerPrompt, Vec<(usize, RemoteImage)>), ApiError> {
    let items = fields.required_list("messages")?.into_iter().enumerate();
    let items = items.map(|(index, item)| (format!("messages[{index}]"), item));
    read(items, "messages", limits, remote)
}

/// A chat message and its location in the request.
pub(super) type Placed = (String, Value);

/// Like [`prompt`], but for messages from any source; `name` is the field that errors refer to.
///
/// # Errors
/// Same as [`prompt`].
pub(super) fn read(
    items: impl Iterator<Item = Placed>,
    name: &str,
    limits: &RequestLimits,
    remote: RemotePolicy,
) -> Result<(AnswerPrompt, Vec<(usize, RemoteImage)>), ApiError> {
    let mut shown = Shown {
        images: Vec::new(),
        videos: Vec::new(),
        remote,
        frames_left: limits.max_video_frames,
    };
    let mut messages = Vec::new();
    let mut calls = HashSet::new();
    for (location, item) in items {
        messages.push(message(&location, item, &mut shown, &mut calls)?);
        shown.check(name, limits)?;
    }
    let messages = Messages::new(messages)
        .map_err(|error| ApiError::field(name, "invalid_value", error.to_string()))?;
    let mut remote = Vec::new();
    let sources = shown.images.into_iter().enumerate();
    let images = sources.map(|(place, source)| match source {
        ImageSource::Here(file) => ImageInput::File(file),
        ImageSource::Remote(image) => {
            remote.push((place, image));
            ImageInput::File(Vec::new())
        }
    });
    let images = images.collect();
    let prompt = AnswerPrompt::Chat {
        messages,
        images,
        videos: shown.videos,
    };
    Ok((prompt, remote))
}

/// Reads a message; `calls` holds the ids of earlier calls.
fn message(
    location: &str,
    item: Value,
    shown: &mut Shown,
    calls: &mut HashSet<String>,
) -> Result<Message, ApiError> {
    let mut fields = Fields::of(location, item)?;
    let role = match fields.required_string("role")?.as_str() {
        // A newer name for the same role.
        "system" | "developer" => "system",
        "user" => "user",
        "assistant" => "assistant",
        "tool" => "tool",
        other => {
            let location = fields.location("role");
            return Err(ApiError::field(
                &location,
                "unsupported_value",
                format!(
                    "{location} is {other:?}, expected system, developer, user, assistant or tool"
                ),
            ));
        }
    };
    let made = if role == "assistant" {
        tool_calls(&mut fields, calls)?
    } else {
        Vec::new()
    };
    if role == "tool" {
        let id = fields.required_string("tool_call_id")?;
        if !calls.contains(&id) {
            let at = fields.location("tool_call_id");
            let message = format!("{at} is {id:?}, but no earlier message has a call with that id");
            return Err(ApiError::field(&at, "invalid_value", message));
        }
    }
    let at = fields.location("content");
    let content = match fields.value("content") {
        None if !made.is_empty() => Content::Text(String::new()),
        Some(Value::String(text)) => Content::Text(text),
        Some(Value::Array(items)) => {
            let parts = items.into_iter().enumerate();
            let parts = parts.map(|(index, item)| part(&format!("{at}[{index}]"), item, shown));
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
    let content = if made.is_empty() {
        content
    } else {
        Content::Calls {
            text: content.texts().collect(),
            calls: made,
        }
    };
    Ok(Message {
        role: role.to_owned(),
        content,
    })
}

/// Reads the calls that an assistant made, and adds their ids to `ids`.
fn tool_calls(fields: &mut Fields, ids: &mut HashSet<String>) -> Result<Vec<ToolCall>, ApiError> {
    let at = fields.location("tool_calls");
    let items = match fields.value("tool_calls") {
        None => return Ok(Vec::new()),
        Some(Value::Array(items)) => items,
        Some(other) => return Err(wrong(&at, &other, "a list")),
    };
    let calls = items.into_iter().enumerate().map(|(index, item)| {
        let mut call = Fields::of(&format!("{at}[{index}]"), item)?;
        ids.insert(call.required_string("id")?);
        let kind = call.string("type")?;
        if let Some(kind) = kind.filter(|kind| kind != "function") {
            let at = call.location("type");
            let message = format!("{at} is {kind:?}, expected function");
            return Err(ApiError::field(&at, "unsupported_value", message));
        }
        // Streams contain it, and some clients send it back.
        call.integer("index", 0)?;
        let at = call.location("function");
        let function = call.object("function")?;
        let mut function = function.ok_or_else(|| missing(&at))?;
        let name = function.required_string("name")?;
        let at = function.location("arguments");
        let arguments = arguments(&at, &function.required_string("arguments")?)?;
        function.end()?;
        call.end()?;
        Ok(ToolCall { name, arguments })
    });
    calls.collect()
}

/// Parses the arguments of a call, which clients send as a JSON string.
pub(super) fn arguments(at: &str, text: &str) -> Result<Value, ApiError> {
    match serde_json::from_str(text) {
        Ok(arguments @ Value::Object(_)) => Ok(arguments),
        _ => Err(ApiError::field(
            at,
            "invalid_value",
            format!("{at} is not a string with a JSON object"),
        )),
    }
}

fn part(location: &str, item: Value, shown: &mut Shown) -> Result<Part, ApiError> {
    let mut fields = Fields::of(location, item)?;
    let part = match fields.required_string("type")?.as_str() {
        "text" => Part::Text(fields.required_string("text")?),
        "image_url" => {
            let at = fields.location("image_url");
            // Some clients send the address directly.
            match fields.value("image_url") {
                None => return Err(missing(&at)),
                Some(Value::String(url)) => shown.image(&at, &url)?,
                Some(other) => image(&at, other, shown)?,
            }
            Part::Image
        }
        "video_url" => {
            let at = fields.location("video_url");
            let value = fields.value("video_url").ok_or_else(|| missing(&at))?;
            shown.video(|most| video_url::of_url(&at, value, most))?;
            Part::Video
        }
        "video" => {
            shown.video(|most| video_url::of_part(&mut fields, most))?;
            Part::Video
        }
        other => {
            let at = fields.location("type");
            return Err(ApiError::field(
                &at,
                "unsupported_value",
                format!("{at} is {other:?}, expected text, image_url, video_url or video"),
            ));
        }
    };
    fields.end()?;
    Ok(part)
}

fn image(location: &str, value: Value, shown: &mut Shown) -> Result<(), ApiError> {
    let mut fields = Fields::of(location, value)?;
    let at = fields.location("url");
    shown.image(&at, &fields.required_string("url")?)?;
    // The checkpoint's own preprocessor config determines the size of an image.
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
