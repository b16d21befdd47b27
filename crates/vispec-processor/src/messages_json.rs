//! Reading a conversation from the JSON that Hugging Face chats are written in.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{ProcessorError, Result};
use crate::messages::{Content, Message, Messages, Part};
use crate::read_limited::{MAX_TEXT, read_limited};

/// Types of content parts that can be used.
const SUPPORTED_PARTS: &str = "text, image, video";

impl Messages {
    /// Reads a file as [`Self::from_json`] does.
    ///
    /// # Errors
    /// [`ProcessorError::Io`], [`ProcessorError::FileTooLarge`] above 64 MiB, and those of
    /// [`Self::from_json`].
    pub fn read(path: &Path) -> Result<Self> {
        Self::from_json(&read_limited(path, MAX_TEXT)?)
    }

    /// Reads a list of `{"role": ..., "content": ...}`. The content is a string or a list of
    /// `{"type": "text", "text": ...}`, `{"type": "image"}` and `{"type": "video"}`; other fields are
    /// ignored.
    ///
    /// # Errors
    /// [`ProcessorError::MessagesNotUtf8`], [`ProcessorError::MessagesSyntax`],
    /// [`ProcessorError::MessagesShape`], [`ProcessorError::UnknownPart`] or
    /// [`ProcessorError::NoMessages`].
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes).map_err(|error| ProcessorError::MessagesNotUtf8 {
            offset: error.valid_up_to(),
        })?;
        // A byte order mark is not part of JSON, but some editors write one.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let value = serde_json::from_str(text)
            .map_err(|source| ProcessorError::MessagesSyntax { source })?;
        Self::from_json_value(&value)
    }

    /// The same as [`Self::from_json`] for JSON that is already parsed.
    ///
    /// # Errors
    /// [`ProcessorError::MessagesShape`], [`ProcessorError::UnknownPart`] or
    /// [`ProcessorError::NoMessages`].
    pub fn from_json_value(value: &Value) -> Result<Self> {
        let Value::Array(items) = value else {
            return Err(wrong("messages", Some(value), "a list of messages"));
        };
        let messages = items
            .iter()
            .enumerate()
            .map(|(index, item)| message(index, item));
        Self::new(messages.collect::<Result<_>>()?)
    }
}

fn message(index: usize, value: &Value) -> Result<Message> {
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
                .map(|(index, item)| part(&format!("{content_location}[{index}]"), item));
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

fn part(location: &str, value: &Value) -> Result<Part> {
    let Value::Object(fields) = value else {
        return Err(wrong(location, Some(value), "an object with a type"));
    };
    match string(location, fields, "type")?.as_str() {
        "text" => Ok(Part::Text(string(location, fields, "text")?)),
        "image" => Ok(Part::Image),
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
            "messages[0].content[0].type: content part of type \"audio\", expected one of text, image, video"
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
