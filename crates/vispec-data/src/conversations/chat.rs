//! Rows of `messages` with `role` and `content`, the format of Hugging Face chats.

use serde_json::Value;
use vispec_processor::{Message, Messages};

use super::conversation::DropReason;
use super::turns::checked;
use crate::error::{DataError, Result};
use crate::rows::Record;

/// Column of the messages.
pub(super) const COLUMN: &str = "messages";
/// Column of the video folders.
pub(super) const VIDEOS: &str = "videos";
/// Column of the image paths.
pub(super) const IMAGES: &str = "images";

/// Returns the messages of a row.
///
/// # Errors
/// [`DataError::RowSyntax`] if they are not a chat.
pub(super) fn messages(record: &Record) -> Result<std::result::Result<Vec<Message>, DropReason>> {
    let wrong = |reason: String| DataError::RowSyntax {
        origin: record.origin.clone(),
        expected: "a row with a chat in the field messages",
        reason,
    };
    let value = record.fields.get(COLUMN);
    let value = value.ok_or_else(|| wrong("the field is missing".to_owned()))?;
    if matches!(value, Value::Array(items) if items.is_empty()) {
        return Ok(Err(DropReason::NoQuestion));
    }
    let messages = Messages::from_json_value(value).map_err(|error| wrong(error.to_string()))?;
    Ok(checked(messages.as_slice().to_vec()))
}

/// Returns the paths in the column `name` of a row; empty if the field is missing.
///
/// # Errors
/// [`DataError::Field`] if the field is not a list of strings.
pub(super) fn paths(record: &Record, name: &str) -> Result<Vec<String>> {
    if record.has(name) {
        record.texts(name)
    } else {
        Ok(Vec::new())
    }
}
