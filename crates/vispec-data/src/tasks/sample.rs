//! One thing to ask.

use vispec_processor::Messages;

use crate::error::RowOrigin;
use crate::rows::ImageSource;

/// A prompt of a task, with the places of its images.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Unique within the task and the same in every run.
    pub id: String,
    /// System message, if the task has one, and the first user message, parts in upstream's order.
    pub messages: Messages,
    /// One for each image place of `messages`, in that order.
    pub images: Vec<ImageSource>,
    /// User turns that follow the answer to the first.
    pub following_turns: Vec<String>,
    /// A right answer, if the task has one.
    pub reference: Option<String>,
    /// The row that the sample was made of.
    pub origin: RowOrigin,
}
