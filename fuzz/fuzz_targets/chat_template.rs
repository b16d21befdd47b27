//! Chat templates of any content.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vispec_processor::{ChatTemplate, GenerationPrompt, Messages, SpecialTokens};

fuzz_target!(|source: &str| {
    let tokens = SpecialTokens {
        bos: Some("<s>".to_owned()),
        ..SpecialTokens::default()
    };
    if let Ok(template) = ChatTemplate::new("fuzzed", source, tokens) {
        let messages = Messages::from_prompt(Some("Be brief."), "What is it?", 1);
        let _ = template.render(&messages, GenerationPrompt::Add);
    }
});
