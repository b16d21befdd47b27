//! A conversation that grows: messages, their images, and those that wait for a question.

use vispec_processor::{Content, DecodedImage, Message, Messages, Part, ProcessorError};

/// Everything that was said so far.
#[derive(Debug, Clone, Default)]
pub struct Conversation {
    messages: Vec<Message>,
    images: Vec<DecodedImage>,
    /// Images that go before the next question.
    waiting: Vec<DecodedImage>,
}

impl Conversation {
    /// A conversation in which nothing was said, with a system message if there is one.
    #[must_use]
    pub fn new(system: Option<&str>) -> Self {
        let system = system.map(|text| message("system", Content::Text(text.to_owned())));
        Self {
            messages: system.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Shows an image with the next question.
    pub fn show(&mut self, image: DecodedImage) {
        self.waiting.push(image);
    }

    /// The conversation with one more question, images first. It becomes part of the conversation
    /// by [`answered`](Self::answered) only, so that a question that failed is not asked again.
    #[must_use]
    pub fn asked(&self, question: &str) -> Self {
        let mut asked = self.clone();
        let mut parts = vec![Part::Image; asked.waiting.len()];
        parts.push(Part::Text(question.to_owned()));
        asked.messages.push(message("user", Content::Parts(parts)));
        asked.images.append(&mut asked.waiting);
        asked
    }

    /// The conversation with an answer.
    #[must_use]
    pub fn answered(mut self, answer: &str) -> Self {
        let content = Content::Text(answer.to_owned());
        self.messages.push(message("assistant", content));
        self
    }

    /// Messages for the chat template.
    ///
    /// # Errors
    /// If nothing was said yet.
    pub fn messages(&self) -> Result<Messages, ProcessorError> {
        Messages::new(self.messages.clone())
    }

    /// The images in the order of their places in the messages.
    #[must_use]
    pub fn images(&self) -> &[DecodedImage] {
        &self.images
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
    fn images_belong_to_the_next_question() {
        let image = DecodedImage::from_rgb8(ImageSize::new(1, 1), vec![0; 3]).unwrap();
        let mut conversation = Conversation::new(Some("Be short."));
        conversation.show(image);
        let asked = conversation.asked("What is it?");
        assert!(conversation.images().is_empty());
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
        assert_eq!(next.images().len(), 1);
    }
}
