//! One conversation.

use std::fmt;

use vispec_processor::{Content, Message, Messages};

use crate::error::RowOrigin;
use crate::rows::{ImageSource, VideoSource};

/// A conversation that alternates between user and assistant and ends with an answer, or a single
/// question without an answer.
#[derive(Debug, Clone)]
pub struct Conversation {
    /// The publisher's id, or else the row.
    pub id: String,
    /// The messages; a system message comes first if there is one.
    pub messages: Messages,
    /// One image per image placeholder of `messages`, in order.
    pub images: Vec<ImageSource>,
    /// One video per video placeholder of `messages`, in order.
    pub videos: Vec<VideoSource>,
    /// The row of the conversation.
    pub origin: RowOrigin,
}

impl Conversation {
    /// Returns whether the conversation has an answer.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        let mut messages = self.messages.as_slice().iter();
        messages.any(|message| message.role == ASSISTANT)
    }

    /// Returns the conversation up to the first question, with its images and videos.
    #[must_use]
    pub fn question(&self) -> (Vec<Message>, &[ImageSource], &[VideoSource]) {
        let messages = self.messages.as_slice();
        let end = messages.iter().position(|message| message.role == USER);
        let question = messages[..end.map_or(0, |end| end + 1)].to_vec();
        let contents = || question.iter().map(|message| &message.content);
        let n_images: usize = contents().map(Content::n_images).sum();
        let n_videos: usize = contents().map(Content::n_videos).sum();
        let images = &self.images[..n_images.min(self.images.len())];
        let videos = &self.videos[..n_videos.min(self.videos.len())];
        (question, images, videos)
    }
}

/// Role of questions.
pub(super) const USER: &str = "user";
/// Role of answers.
pub(super) const ASSISTANT: &str = "assistant";
/// Role of system messages.
pub(super) const SYSTEM: &str = "system";

/// The result of reading a row.
#[derive(Debug, Clone)]
pub enum Row {
    /// A usable conversation.
    Kept(Box<Conversation>),
    /// A valid row that gives no sample.
    Dropped {
        /// The row.
        origin: RowOrigin,
        /// Why it gives no sample.
        reason: DropReason,
    },
}

/// Why a valid row gives no sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DropReason {
    /// There is no question.
    NoQuestion,
    /// There is no answer, or only blank ones, although the answers of the data are needed.
    NoAnswer,
    /// A speaker is neither user nor assistant.
    UnknownSpeaker(String),
    /// One side speaks twice in a row.
    NotAlternating,
    /// The number of images differs from the number of placeholders in the text.
    ImageCount {
        /// Images of the row.
        found: usize,
        /// Placeholders in the text.
        expected: usize,
    },
    /// The number of videos differs from the number of placeholders in the text.
    VideoCount {
        /// Videos of the row.
        found: usize,
        /// Placeholders in the text.
        expected: usize,
    },
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoQuestion => f.write_str("no question"),
            Self::NoAnswer => f.write_str("no answer"),
            Self::UnknownSpeaker(name) => write!(f, "unknown speaker {name:?}"),
            Self::NotAlternating => f.write_str("one side speaks twice in a row"),
            Self::ImageCount { found, expected } => {
                write!(f, "{found} images for {expected} placeholders")
            }
            Self::VideoCount { found, expected } => {
                write!(f, "{found} videos for {expected} placeholders")
            }
        }
    }
}
