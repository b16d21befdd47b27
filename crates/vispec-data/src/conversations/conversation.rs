//! One conversation.

use std::fmt;

use vispec_processor::{Content, Message, Messages};

use crate::error::RowOrigin;
use crate::rows::{ImageSource, VideoSource};

/// A conversation that alternates between user and assistant, and ends with an answer; or a question
/// that nobody answers.
#[derive(Debug, Clone)]
pub struct Conversation {
    /// The id that the publisher gave it, or else its row.
    pub id: String,
    /// Who said what, a system message first if there is one.
    pub messages: Messages,
    /// One for each image place of `messages`, in order.
    pub images: Vec<ImageSource>,
    /// One for each video place of `messages`, in order.
    pub videos: Vec<VideoSource>,
    /// The row that it comes from.
    pub origin: RowOrigin,
}

impl Conversation {
    /// Whether there is an answer.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        let mut messages = self.messages.as_slice().iter();
        messages.any(|message| message.role == ASSISTANT)
    }

    /// The conversation up to the first question, and the images and videos in it.
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
/// Role of instructions for the whole conversation.
pub(super) const SYSTEM: &str = "system";

/// What a row is good for.
#[derive(Debug, Clone)]
pub enum Row {
    /// A sample.
    Kept(Box<Conversation>),
    /// Nothing, for a reason that is no defect of the file.
    Dropped {
        /// The row.
        origin: RowOrigin,
        /// Why it makes no sample.
        reason: DropReason,
    },
}

/// Why a sound row makes no sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DropReason {
    /// Nobody asks anything.
    NoQuestion,
    /// Nobody answers, or only with blanks, where the answers of the data are read.
    NoAnswer,
    /// Somebody speaks who is neither user nor assistant.
    UnknownSpeaker(String),
    /// The same side speaks twice in a row.
    NotAlternating,
    /// The text has places for another number of images than there are.
    ImageCount {
        /// Images of the row.
        found: usize,
        /// Places in the text.
        expected: usize,
    },
    /// The text has places for another number of videos than there are.
    VideoCount {
        /// Videos of the row.
        found: usize,
        /// Places in the text.
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
                write!(f, "{found} images for {expected} places")
            }
            Self::VideoCount { found, expected } => {
                write!(f, "{found} videos for {expected} places")
            }
        }
    }
}
