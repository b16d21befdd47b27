//! Locating a user's text in the output of a chat template.

use vispec_core::TokenId;
use vispec_processor::{
    Content, GenerationPrompt, Message, Messages, Processor, ProcessorError, SpecialText,
};

use examples_answer::failure::Failure;

/// Text that no template writes itself and that contains no letter for a template to change.
const SENTINEL: &str = "417094316508";

/// The parts of a user's turn around its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct UserTurn {
    /// Rendered text before the user's text. Trailing spaces are removed, because tokenizers join
    /// them with the next word.
    pub(super) opening: String,
    /// First word after the user's text. Targets whose turns have no end token write it before they
    /// answer themselves.
    closing: String,
}

impl UserTurn {
    /// Returns the user's turn of a checkpoint's chat template.
    ///
    /// # Errors
    /// If the user's text cannot be located; any error of the template.
    pub(super) fn of(processor: &Processor) -> Result<Self, Failure> {
        let message = Message {
            role: "user".to_owned(),
            content: Content::Text(SENTINEL.to_owned()),
        };
        let messages = Messages::new(vec![message])?;
        let template = processor.chat_template();
        let rendered = template.render(&messages, GenerationPrompt::Add)?;
        Self::around(SENTINEL, &rendered).ok_or_else(|| {
            let name = template.name();
            let message = format!(
                "{name}: cannot locate where a user's text begins in the rendered template, so \
                 --source self cannot generate questions; provide questions in a file, with \
                 --source chat"
            );
            anyhow::anyhow!(message).into()
        })
    }

    /// Returns the turn around `text`, if it occurs once and something comes before it.
    fn around(text: &str, rendered: &str) -> Option<Self> {
        let (before, behind) = rendered.split_once(text)?;
        let opening = before.trim_end_matches(' ');
        if behind.contains(text) || opening.trim().is_empty() {
            return None;
        }
        Some(Self {
            opening: opening.to_owned(),
            closing: behind
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_owned(),
        })
    }

    /// Returns the question in these tokens, without an end token, and whether the text itself
    /// closes the turn.
    ///
    /// # Errors
    /// Any error of the tokenizer.
    pub(super) fn text(
        &self,
        processor: &Processor,
        mut tokens: &[TokenId],
    ) -> Result<(String, bool), ProcessorError> {
        if let [rest @ .., last] = tokens
            && processor.eos_token_ids().contains(last)
        {
            tokens = rest;
        }
        let text = processor.tokenizer().decode(tokens, SpecialText::Keep)?;
        let end = Some(self.closing.as_str()).filter(|closing| !closing.is_empty());
        let end = end.and_then(|closing| text.find(closing));
        let asked = &text[..end.unwrap_or(text.len())];
        Ok((asked.trim_end().to_owned(), end.is_some()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(opening: &str, closing: &str) -> Option<UserTurn> {
        Some(UserTurn {
            opening: opening.to_owned(),
            closing: closing.to_owned(),
        })
    }

    #[test]
    fn the_turn_is_what_is_around_the_text() {
        let chatml = "<s>user\nTEXT<e>\n<s>assistant\n";
        assert_eq!(UserTurn::around("TEXT", chatml), turn("<s>user\n", "<e>"));
        let vicuna = "USER: TEXT ASSISTANT:";
        assert_eq!(
            UserTurn::around("TEXT", vicuna),
            turn("USER:", "ASSISTANT:")
        );
        assert_eq!(UserTurn::around("TEXT", "[INST] TEXT"), turn("[INST]", ""));
    }

    #[test]
    fn a_text_without_a_beginning_is_no_turn() {
        for rendered in ["", "TEXT", " \nTEXT", "USER: text", "A: TEXT B: TEXT"] {
            assert_eq!(UserTurn::around("TEXT", rendered), None, "{rendered:?}");
        }
    }
}
