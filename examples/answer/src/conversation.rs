//! A growing conversation: messages, their images and videos, and those for the next question.

use vispec_processor::{
    Content, DecodedImage, Media, Message, Messages, Part, ProcessorError, Video,
};

/// Images and videos, in order.
#[derive(Debug, Clone, Default)]
struct Shown {
    images: Vec<DecodedImage>,
    videos: Vec<Video>,
}

/// All messages so far.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    messages: Vec<Message>,
    shown: Shown,
    /// Images and videos to show before the next question.
    waiting: Shown,
}

impl Conversation {
    /// Creates an empty conversation, with a system message if there is one.
    #[must_use]
    pub fn new(system: Option<&str>) -> Self {
        let system = system.map(|text| message("system", Content::Text(text.to_owned())));
        Self {
            messages: system.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Adds an image to the next question.
    pub fn show(&mut self, image: DecodedImage) {
        self.waiting.images.push(image);
    }

    /// Adds a video to the next question.
    pub fn show_video(&mut self, video: Video) {
        self.waiting.videos.push(video);
    }

    /// Returns the conversation with one more question, after the waiting images and then the
    /// videos. `self` does not change, so a question that fails leaves no trace;
    /// [`answered`](Self::answered) completes the turn.
    #[must_use]
    pub fn asked(&self, question: &str) -> Self {
        let mut asked = self.clone();
        let Shown { images, videos } = &mut asked.waiting;
        let mut parts = vec![Part::Image; images.len()];
        parts.extend(videos.iter().map(|_| Part::Video));
        parts.push(Part::Text(question.to_owned()));
        asked.shown.images.append(images);
        asked.shown.videos.append(videos);
        asked.messages.push(message("user", Content::Parts(parts)));
        asked
    }

    /// Returns the conversation with an answer.
    #[must_use]
    pub fn answered(mut self, answer: &str) -> Self {
        let content = Content::Text(answer.to_owned());
        self.messages.push(message("assistant", content));
        self
    }

    /// Returns the messages for the chat template.
    ///
    /// # Errors
    /// If there are no messages yet.
    pub fn messages(&self) -> Result<Messages, ProcessorError> {
        Messages::new(self.messages.clone())
    }

    /// Returns images and videos in the order of their places in the messages.
    #[must_use]
    pub fn media(&self) -> Media<'_> {
        Media {
            images: &self.shown.images,
            videos: &self.shown.videos,
        }
    }
}

fn message(role: &str, content: Content) -> Message {
    Message {
        role: role.to_owned(),
        content,
    }
}

#[cfg(test)]
mod tests {
    use vispec_processor::ImageSize;

    use super::*;

    #[test]
    fn what_is_shown_belongs_to_the_next_question() {
        let image = DecodedImage::from_rgb8(ImageSize::new(1, 1), vec![0; 3]).unwrap();
        let mut conversation = Conversation::new(Some("Be short."));
        conversation.show(image.clone());
        conversation.show_video(Video::new(vec![image; 2], 2.0).unwrap());
        let asked = conversation.asked("What is it?");
        assert!(conversation.media().images.is_empty());
        let next = asked.answered("A dot.").asked("Sure?");
        let messages = next.messages().unwrap();
        let roles = messages
            .as_slice()
            .iter()
            .map(|message| message.role.as_str());
        assert_eq!(
            Vec::from_iter(roles),
            ["system", "user", "assistant", "user"]
        );
        assert_eq!(messages.n_images(), 1);
        assert_eq!(messages.as_slice()[1].content.n_images(), 1);
        assert_eq!(messages.as_slice()[1].content.n_videos(), 1);
        let shown = next.media();
        assert_eq!((shown.images.len(), shown.videos.len()), (1, 1));
    }
}
