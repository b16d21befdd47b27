//! The prompt that asks a target for long answers about images, from upstream's stage 2.

use vispec_processor::{Content, Message, Messages, Part};

use super::conversation::{Conversation, SYSTEM, USER};

/// The system message.
pub(crate) const LONG_ANSWER_SYSTEM: &str = "A chat between a curious human and an artificial \
     intelligence assistant. The assistant gives helpful, detailed, and polite answers to the \
     human's questions.";

/// The end of the request.
pub(crate) const LONG_ANSWER_REQUEST: &str = "Please answer with at least 1000 words.";

/// Returns the first question of a conversation in upstream's form: the instruction without its
/// image marker, the images and videos, then the request for a long answer. The answer of the row
/// is not used.
#[must_use]
pub fn long_answer_prompt(conversation: &Conversation) -> Option<Messages> {
    let (question, images, videos) = conversation.question();
    let asked = question.last()?;
    let texts: Vec<&str> = asked.content.texts().map(str::trim).collect();
    let mut user = vec![Part::Text(texts.join(" ").trim().to_owned())];
    user.extend(images.iter().map(|_| Part::Image));
    user.extend(videos.iter().map(|_| Part::Video));
    user.push(Part::Text(LONG_ANSWER_REQUEST.to_owned()));
    let message = |role: &str, parts| Message {
        role: role.to_owned(),
        content: Content::Parts(parts),
    };
    let system = vec![Part::Text(LONG_ANSWER_SYSTEM.to_owned())];
    Messages::new(vec![message(SYSTEM, system), message(USER, user)]).ok()
}
