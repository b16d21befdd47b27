//! One thing to ask.

use vispec_processor::{Content, Message, Messages, Part};

use crate::error::RowOrigin;
use crate::rows::{ImageSource, VideoSource};

/// A prompt of a task, with the places of its images and videos.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Unique within the task and the same in every run.
    pub id: String,
    /// System message, if the task has one, and the first user message, parts in upstream's order.
    pub messages: Messages,
    /// One for each image place of `messages`, in that order.
    pub images: Vec<ImageSource>,
    /// One for each video place of `messages`, in that order.
    pub videos: Vec<VideoSource>,
    /// User turns that follow the answer to the first.
    pub following_turns: Vec<String>,
    /// A right answer, if the task has one.
    pub reference: Option<String>,
    /// The row that the sample was made of.
    pub origin: RowOrigin,
}

impl Sample {
    /// The same sample for a model that reads no videos: every frame that is looked at is an image.
    #[must_use]
    pub fn with_frames_as_images(self) -> Self {
        let (mut images, mut videos) = (self.images.into_iter(), self.videos.into_iter());
        let mut shown = Vec::new();
        let mut part = |part: &Part| match part {
            Part::Text(_) => vec![part.clone()],
            Part::Image => {
                shown.extend(images.next());
                vec![Part::Image]
            }
            Part::Video => {
                let before = shown.len();
                shown.extend(videos.next().iter().flat_map(VideoSource::frames));
                vec![Part::Image; shown.len() - before]
            }
        };
        let messages = self.messages.map(|message| match &message.content {
            Content::Text(_) | Content::Calls { .. } => message.clone(),
            Content::Parts(parts) => Message {
                role: message.role.clone(),
                content: Content::Parts(parts.iter().flat_map(&mut part).collect()),
            },
        });
        Self {
            messages,
            images: shown,
            videos: Vec::new(),
            ..self
        }
    }
}
