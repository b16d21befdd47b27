//! Finished conversations as text with the ranges of their answers, for teacher forcing.

use std::ops::Range;

use crate::chat_template::{ChatTemplate, GenerationPrompt};
use crate::error::{ProcessorError, Result};
use crate::messages::{Message, Messages};

/// System message of Vicuna 1.1, used unless the conversation has one.
const VICUNA_SYSTEM: &str = "A chat between a curious user and an artificial intelligence \
                             assistant. The assistant gives helpful, detailed, and polite answers \
                             to the user's questions.";

/// Role of the messages that the model writes.
const ASSISTANT: &str = "assistant";

/// Rendered messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Transcript {
    /// The text, with one placeholder per image.
    pub(crate) text: String,
    /// Byte ranges of `text` that the model would have written: each answer with the token that
    /// ends it.
    pub(crate) answers: Vec<Range<usize>>,
}

impl Transcript {
    /// Renders with the chat template of a checkpoint. An answer is the text that its message adds
    /// to the rendered prompt before it; text after its last token of `ends` is not part of it.
    pub(crate) fn from_template(
        template: &ChatTemplate,
        messages: &Messages,
        ends: &[String],
    ) -> Result<Self> {
        let all = messages.as_slice();
        let text = template.render(messages, GenerationPrompt::Omit)?;
        let mut answers = Vec::new();
        for (index, message) in all.iter().enumerate() {
            if message.role != ASSISTANT {
                continue;
            }
            let unstable = || ProcessorError::AnswerPlace {
                template: template.name().to_owned(),
                index,
            };
            if index == 0 {
                return Err(unstable());
            }
            let asked = Messages::new(all[..index].to_vec())?;
            let asked = template.render(&asked, GenerationPrompt::Add)?;
            let answered = Messages::new(all[..=index].to_vec())?;
            let answered = template.render(&answered, GenerationPrompt::Omit)?;
            let is_stable = text.starts_with(&answered) && answered.starts_with(&asked);
            if !is_stable {
                return Err(unstable());
            }
            let answer = &answered[asked.len()..];
            let end = ends
                .iter()
                .filter_map(|end| answer.rfind(end.as_str()).map(|place| place + end.len()))
                .max();
            let len = end.unwrap_or_else(|| answer.trim_end().len());
            answers.push(asked.len()..asked.len() + len);
        }
        Ok(Self { text, answers })
    }

    /// Renders in the format that LLaVA's language models were trained on: FastChat's template
    /// `vicuna_v1.1`, in which `end` closes an answer and images come before the text of their
    /// message.
    pub(crate) fn vicuna(messages: &Messages, image: &str, end: &str) -> Self {
        let (system, turns) = match messages.as_slice() {
            [first, turns @ ..] if first.role == "system" => (body(first, image), turns),
            turns => (VICUNA_SYSTEM.to_owned(), turns),
        };
        let mut text = system + " ";
        let mut answers = Vec::new();
        for message in turns {
            text += &message.role.to_uppercase();
            text.push(':');
            let start = text.len();
            text.push(' ');
            text += &body(message, image);
            if message.role == ASSISTANT {
                text += end;
                answers.push(start..text.len());
            } else {
                text.push(' ');
            }
        }
        Self { text, answers }
    }
}

/// Returns the placeholders of the images, each on a line of its own, then the text.
fn body(message: &Message, image: &str) -> String {
    let images = format!("{image}\n").repeat(message.content.n_images());
    let texts: Vec<&str> = message.content.texts().collect();
    images + &texts.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::special_tokens::SpecialTokens;

    const TEMPLATE: &str = "{% for m in messages %}<s>{{ m.role }}\n{{ m.content }}<e>\n\
                            {% endfor %}{% if add_generation_prompt %}<s>assistant\n{% endif %}";

    fn conversation() -> Messages {
        let json = br#"[{"role": "user", "content": "1 + 1?"},
            {"role": "assistant", "content": "two"}, {"role": "user", "content": "sure?"},
            {"role": "assistant", "content": "\nyes <e>"}]"#;
        Messages::from_json(json).unwrap()
    }

    fn answers(transcript: &Transcript) -> Vec<&str> {
        let places = transcript.answers.iter().cloned();
        places.map(|place| &transcript.text[place]).collect()
    }

    #[test]
    fn answers_reach_to_the_token_that_ends_them() {
        let template = ChatTemplate::new("t", TEMPLATE, SpecialTokens::default()).unwrap();
        let ends = ["<e>".to_owned()];
        let transcript = Transcript::from_template(&template, &conversation(), &ends).unwrap();
        assert_eq!(answers(&transcript), ["two<e>", "\nyes <e><e>"]);
        assert!(transcript.text.ends_with("<e>\n"));
    }

    #[test]
    fn vicuna_is_that_of_fastchat() {
        let transcript = Transcript::vicuna(&conversation(), "<image>", "</s>");
        let expected = format!(
            "{VICUNA_SYSTEM} USER: 1 + 1? ASSISTANT: two</s>USER: sure? ASSISTANT: \nyes <e></s>"
        );
        assert_eq!(transcript.text, expected);
        assert_eq!(answers(&transcript), [" two</s>", " \nyes <e></s>"]);
    }

    #[test]
    fn templates_that_rewrite_earlier_turns_are_refused() {
        let source = "{{ messages | length }}{% for m in messages %}{{ m.content }}{% endfor %}";
        let template = ChatTemplate::new("t", source, SpecialTokens::default()).unwrap();
        let error = Transcript::from_template(&template, &conversation(), &[]).unwrap_err();
        assert!(
            matches!(error, ProcessorError::AnswerPlace { index: 1, .. }),
            "{error}"
        );
    }
}
