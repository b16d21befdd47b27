//! One prompt of a task.

use vispec_processor::{Content, Message, Messages, Part};

use crate::error::RowOrigin;
use crate::rows::{ImageSource, VideoSource};

/// A prompt of a task, with the locations of its images and videos.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Unique within the task, and the same in every run.
    pub id: String,
    /// System message, if the task has one, and the first user message with its parts in upstream's
    /// order.
    pub messages: Messages,
    /// One image per image placeholder of `messages`, in order.
    pub images: Vec<ImageSource>,
    /// One video per video placeholder of `messages`, in order.
    pub videos: Vec<VideoSource>,
    /// User turns after the first answer.
    pub following_turns: Vec<String>,
    /// A correct answer, if the task has one.
    pub reference: Option<String>,
    /// The row of the sample.
    pub origin: RowOrigin,
}

impl Sample {
    /// Converts the sample for a model without video support: every selected frame becomes an
    /// image.
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
