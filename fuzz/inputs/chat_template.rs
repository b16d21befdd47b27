//! Chat templates with any content.

use vispec_processor::{ChatTemplate, GenerationPrompt, Messages, SpecialTokens};

/// Returns whether a template compiles and renders.
pub(crate) fn check(data: &[u8]) -> bool {
    let Ok(source) = std::str::from_utf8(data) else {
        return false;
    };
    let tokens = SpecialTokens {
        bos: Some("<s>".to_owned()),
        ..SpecialTokens::default()
    };
    let messages = Messages::from_prompt(Some("Be brief."), "What is it?", 1);
    ChatTemplate::new("fuzzed", source, tokens)
        .is_ok_and(|template| template.render(&messages, GenerationPrompt::Add).is_ok())
}
