//! Reads conversations from JSON in the format of Hugging Face chats.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{ProcessorError, Result};
use crate::messages::{Content, Message, Messages, Part};
use crate::read_limited::{MAX_TEXT, read_limited};

/// Supported types of content parts.
const SUPPORTED_PARTS: &str = "text, image, image_url, video";

/// A chat read from a file, and the sources of its images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatFile {
    /// The conversation.
    pub messages: Messages,
    /// The source of each image of the messages, in order.
    pub images: Vec<ImagePlace>,
}

/// The source of an image in a chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImagePlace {
    /// Passed separately: `{"type": "image"}`.
    Given,
    /// Loaded from an address: `{"type": "image_url", "image_url": {"url": ...}}`, or the address
    /// itself instead of the object, as some clients write it.
    Addressed {
        /// Location of the address, for example `messages[0].content[1].image_url`.
        location: String,
        /// The address.
        url: String,
    },
}

impl ChatFile {
    /// Reads a file like [`Messages::from_json`], but images may have addresses.
    ///
    /// # Errors
    /// [`ProcessorError::Io`], [`ProcessorError::FileTooLarge`] if the file is larger than 64 MiB,
    /// and those of [`Messages::from_json`].
    pub fn read(path: &Path) -> Result<Self> {
        Self::from_json_value(&parse(&read_limited(path, MAX_TEXT)?)?)
    }

    fn from_json_value(value: &Value) -> Result<Self> {
        let Value::Array(items) = value else {
            return Err(wrong("messages", Some(value), "a list of messages"));
        };
        let mut images = Vec::new();
        let messages = items
            .iter()
            .enumerate()
            .map(|(index, item)| message(index, item, &mut images));
        Ok(Self {
            messages: Messages::new(messages.collect::<Result<_>>()?)?,
            images,
        })
    }
}

impl Messages {
    /// Reads a list of `{"role": ..., "content": ...}`. The content is a string or a list of
    /// `{"type": "text", "text": ...}`, `{"type": "image"}` and `{"type": "video"}`; other fields
    /// are ignored.
    ///
    /// # Errors
    /// [`ProcessorError::MessagesNotUtf8`], [`ProcessorError::MessagesSyntax`],
    /// [`ProcessorError::MessagesShape`], [`ProcessorError::UnknownPart`] or
    /// [`ProcessorError::NoMessages`].
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        Self::from_json_value(&parse(bytes)?)
    }

    /// Like [`Self::from_json`], but takes parsed JSON.
    ///
    /// # Errors
    /// [`ProcessorError::MessagesShape`], [`ProcessorError::UnknownPart`] or
    /// [`ProcessorError::NoMessages`].
    pub fn from_json_value(value: &Value) -> Result<Self> {
        let ChatFile { messages, images } = ChatFile::from_json_value(value)?;
        let mut addressed = images.into_iter().filter_map(|image| match image {
            ImagePlace::Addressed { location, .. } => Some(location),
            ImagePlace::Given => None,
        });
        match addressed.next() {
            None => Ok(messages),
            Some(location) => Err(ProcessorError::AddressedImage { location }),
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Value> {
    let text = std::str::from_utf8(bytes).map_err(|error| ProcessorError::MessagesNotUtf8 {
        offset: error.valid_up_to(),
    })?;
    // A byte order mark is not part of JSON, but some editors write one.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    serde_json::from_str(text).map_err(|source| ProcessorError::MessagesSyntax { source })
}

fn message(index: usize, value: &Value, images: &mut Vec<ImagePlace>) -> Result<Message> {
    let location = format!("messages[{index}]");
    let Value::Object(fields) = value else {
        return Err(wrong(
            &location,
            Some(value),
            "an object with role and content",
        ));
    };
    let role = string(&location, fields, "role")?;
    let content_location = format!("{location}.content");
    let content = match fields.get("content") {
        Some(Value::String(text)) => Content::Text(text.clone()),
        Some(Value::Array(items)) => {
            let parts = items
                .iter()
                .enumerate()
                .map(|(index, item)| part(&format!("{content_location}[{index}]"), item, images));
            Content::Parts(parts.collect::<Result<_>>()?)
        }
        other => {
            return Err(wrong(
                &content_location,
                other,
                "a string or a list of parts",
            ));
        }
    };
    Ok(Message { role, content })
}

/// Reads a part of a message, and records where its image comes from.
fn part(location: &str, value: &Value, images: &mut Vec<ImagePlace>) -> Result<Part> {
    let Value::Object(fields) = value else {
        return Err(wrong(location, Some(value), "an object with a type"));
    };
    match string(location, fields, "type")?.as_str() {
        "text" => Ok(Part::Text(string(location, fields, "text")?)),
        "image" => {
            images.push(ImagePlace::Given);
            Ok(Part::Image)
        }
        "image_url" => {
            let at = format!("{location}.image_url");
            let url = match fields.get("image_url") {
                Some(Value::String(url)) => url.clone(),
                Some(Value::Object(fields)) => string(&at, fields, "url")?,
                other => return Err(wrong(&at, other, "an object with a url")),
            };
            images.push(ImagePlace::Addressed { location: at, url });
            Ok(Part::Image)
        }
        "video" => Ok(Part::Video),
        other => Err(ProcessorError::UnknownPart {
            location: format!("{location}.type"),
            found: other.to_owned(),
            supported: SUPPORTED_PARTS,
        }),
    }
}

fn string(location: &str, fields: &Map<String, Value>, field: &str) -> Result<String> {
    match fields.get(field) {
        Some(Value::String(text)) => Ok(text.clone()),
        other => Err(wrong(&format!("{location}.{field}"), other, "a string")),
    }
}

fn wrong(location: &str, found: Option<&Value>, expected: &'static str) -> ProcessorError {
    let found = match found {
        None => "nothing",
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "a boolean",
        Some(Value::Number(_)) => "a number",
        Some(Value::String(_)) => "a string",
        Some(Value::Array(_)) => "a list",
        Some(Value::Object(_)) => "an object",
    };
    ProcessorError::MessagesShape {
        location: location.to_owned(),
        found: found.to_owned(),
        expected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(json: &str) -> String {
        Messages::from_json(json.as_bytes())
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn strings_and_parts_are_read() {
        let json = br#"[{"role": "system", "content": "Be short."},
            {"role": "user", "content": [{"type": "image", "url": "x.png"}, {"type": "text", "text": "Hi"}]}]"#;
        let messages = Messages::from_json(json).unwrap();
        assert_eq!(messages.n_images(), 1);
        assert_eq!(
            messages.as_slice()[0].content,
            Content::Text("Be short.".to_owned())
        );
        assert_eq!(
            messages.as_slice()[1].content,
            Content::Parts(vec![Part::Image, Part::Text("Hi".to_owned())])
        );
    }

    #[test]
    fn addresses_of_images_are_noted() {
        let json = br#"[{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "a.png", "detail": "auto"}},
            {"type": "image"},
            {"type": "image_url", "image_url": "b.png"}]}]"#;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chat.json");
        std::fs::write(&path, json).unwrap();
        let chat = ChatFile::read(&path).unwrap();
        assert_eq!(chat.messages.n_images(), 3);
        let place = |part: usize, url: &str| ImagePlace::Addressed {
            location: format!("messages[0].content[{part}].image_url"),
            url: url.to_owned(),
        };
        let expected = [place(0, "a.png"), ImagePlace::Given, place(2, "b.png")];
        assert_eq!(chat.images, expected);
        assert_eq!(
            error(std::str::from_utf8(json).unwrap()),
            "messages[0].content[0].image_url: an address, expected {\"type\": \"image\"} and the image passed separately"
        );
        assert_eq!(
            error(r#"[{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]"#),
            "messages[0].content[0].image_url.url: found nothing, expected a string"
        );
    }

    #[test]
    fn errors_say_where() {
        assert_eq!(error("[]"), "there are no messages");
        assert_eq!(
            error("{}"),
            "messages: found an object, expected a list of messages"
        );
        assert_eq!(
            error(r#"[{"role": 3, "content": ""}]"#),
            "messages[0].role: found a number, expected a string"
        );
        assert_eq!(
            error(r#"[{"role": "user"}]"#),
            "messages[0].content: found nothing, expected a string or a list of parts"
        );
        assert_eq!(
            error(r#"[{"role": "user", "content": [{"type": "audio"}]}]"#),
            "messages[0].content[0].type: content part of type \"audio\", expected one of text, image, image_url, video"
        );
        assert_eq!(
            error(r#"[{"role": "", "content": ""}]"#),
            "messages[0].role: found an empty string, expected a name such as user"
        );
        assert!(error("[1,").starts_with("the messages are not valid JSON"));
        let not_utf8 = Messages::from_json(b"[\"ab\xff\"]").unwrap_err();
        assert!(matches!(
            not_utf8,
            ProcessorError::MessagesNotUtf8 { offset: 4 }
        ));
    }
}
