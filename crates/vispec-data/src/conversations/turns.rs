//! Turns of `from` and `value`, the conversation format of ShareGPT and LLaVA.

use serde_json::Value;
use vispec_processor::{Content, Message, Part};

use super::conversation::{ASSISTANT, DropReason, SYSTEM, USER};
use crate::error::{DataError, Result};
use crate::rows::Record;

/// Column of the turns.
pub(super) const COLUMN: &str = "conversations";
/// LLaVA's placeholder of an image.
const IMAGE_MARKER: &str = "<image>";

/// One turn of a row: the speaker and the text.
pub(super) struct Turn {
    from: String,
    value: String,
}

/// Returns the turns of a row.
///
/// # Errors
/// [`DataError::Field`] if the field is not a list of objects with these two strings.
pub(super) fn turns(record: &Record) -> Result<Vec<Turn>> {
    let wrong = |found: &str| DataError::Field {
        origin: record.origin.clone(),
        field: COLUMN.to_owned(),
        found: found.to_owned(),
        expected: "a list of turns with the strings from and value",
    };
    let Some(Value::Array(items)) = record.fields.get(COLUMN) else {
        return Err(wrong("no list"));
    };
    let turn = |item: &Value| {
        let text = |field: &str| item.get(field).and_then(Value::as_str).map(str::to_owned);
        match (text("from"), text("value")) {
            (Some(from), Some(value)) => Ok(Turn { from, value }),
            _ => Err(wrong(&format!("a turn {}", short(item)))),
        }
    };
    items.iter().map(turn).collect()
}

/// Converts turns to messages. Like upstream, drops a leading turn that is not the human's.
pub(super) fn messages(turns: Vec<Turn>) -> std::result::Result<Vec<Message>, DropReason> {
    let leading = turns.first().is_some_and(|turn| turn.from != "human");
    let turns = turns.into_iter().skip(usize::from(leading));
    let messages = turns.map(|turn| {
        let role = match turn.from.as_str() {
            "human" => USER,
            "gpt" => ASSISTANT,
            _ => return Err(DropReason::UnknownSpeaker(turn.from)),
        };
        Ok(Message {
            role: role.to_owned(),
            content: Content::Text(turn.value),
        })
    });
    checked(messages.collect::<std::result::Result<_, _>>()?)
}

/// Replaces image markers in questions by image parts.
pub(super) fn with_image_places(messages: Vec<Message>) -> Vec<Message> {
    let placed = |message: Message| match message.content {
        Content::Text(text) if message.role == USER && text.contains(IMAGE_MARKER) => Message {
            role: message.role,
            content: Content::Parts(parts(&text)),
        },
        content => Message {
            role: message.role,
            content,
        },
    };
    messages.into_iter().map(placed).collect()
}

fn parts(text: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    for (index, piece) in text.split(IMAGE_MARKER).enumerate() {
        if index > 0 {
            parts.push(Part::Image);
        }
        let piece = piece.trim();
        if !piece.is_empty() {
            parts.push(Part::Text(piece.to_owned()));
        }
    }
    parts
}

/// Checks that questions and answers alternate, and cuts everything after the last answer, since it
/// cannot be supervised. Without an answer, the first question remains, which a target can answer.
pub(super) fn checked(mut messages: Vec<Message>) -> std::result::Result<Vec<Message>, DropReason> {
    let n_system = usize::from(messages.first().is_some_and(|m| m.role == SYSTEM));
    let said = |message: &Message| {
        message.content.n_images() > 0
            || message.content.texts().any(|text| !text.trim().is_empty())
    };
    for (index, message) in messages[n_system..].iter().enumerate() {
        let expected = if index % 2 == 0 { USER } else { ASSISTANT };
        match message.role.as_str() {
            role if role == expected => {}
            USER | ASSISTANT => return Err(DropReason::NotAlternating),
            other => return Err(DropReason::UnknownSpeaker(other.to_owned())),
        }
    }
    if messages.len() == n_system || !said(&messages[n_system]) {
        return Err(DropReason::NoQuestion);
    }
    let last = messages
        .iter()
        .rposition(|message| message.role == ASSISTANT && said(message));
    messages.truncate(last.unwrap_or(n_system) + 1);
    Ok(messages)
}

/// Returns the start of a JSON value, for messages.
fn short(value: &Value) -> String {
    const MAX_CHARS: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
