//! Compares rendered chat templates and their token ids with transformers.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]

mod common;

use common::{ids, json, messages, processor};
use vispec_processor::{Detokenizer, GenerationPrompt, SequenceTokens, SpecialText};

#[test]
fn text_and_ids_are_equal() {
    let cases = json("chat_templates.json");
    for case in cases.as_array().unwrap() {
        let model = case["model"]
            .as_str()
            .unwrap()
            .trim_start_matches("models/");
        let processor = processor(model);
        let generation = match case["add_generation_prompt"].as_bool().unwrap() {
            true => GenerationPrompt::Add,
            false => GenerationPrompt::Omit,
        };
        let messages = messages(&case["messages"]);
        let rendered = processor
            .chat_template()
            .render(&messages, generation)
            .unwrap();
        assert_eq!(rendered, case["rendered"].as_str().unwrap());
        let tokenizer = processor.tokenizer();
        let encoded = tokenizer.encode(&rendered, SequenceTokens::Add).unwrap();
        assert_eq!(encoded, ids(&case["token_ids_without_image_expansion"]));
        let decoded = tokenizer.decode(&encoded, SpecialText::Keep).unwrap();
        assert_eq!(decoded, case["decoded"].as_str().unwrap());
    }
    assert_eq!(cases.as_array().unwrap().len(), 48);
}

#[test]
fn pieces_joined_are_the_whole() {
    for case in json("chat_templates.json").as_array().unwrap() {
        let model = case["model"]
            .as_str()
            .unwrap()
            .trim_start_matches("models/");
        let processor = processor(model);
        let tokenizer = processor.tokenizer();
        let all = ids(&case["token_ids_without_image_expansion"]);
        for special_text in [SpecialText::Keep, SpecialText::Skip] {
            for (n_dropped, n_per_step) in [(0, 1), (0, 3), (2, 1), (5, 4)] {
                // Without its last tokens, the text may stop inside a character.
                let ids = &all[..all.len() - n_dropped];
                let mut detokenizer = Detokenizer::new(tokenizer, special_text);
                let mut text = String::new();
                for step in ids.chunks(n_per_step) {
                    let piece = detokenizer.push(step).unwrap();
                    assert!(!piece.contains('\u{fffd}'));
                    text.push_str(&piece);
                }
                text.push_str(&detokenizer.finish().unwrap());
                assert_eq!(text, tokenizer.decode(ids, special_text).unwrap());
            }
        }
    }
}

#[test]
fn a_character_is_held_back_until_it_is_complete() {
    let processor = processor("qwen-tied");
    let tokenizer = processor.tokenizer();
    let ids = tokenizer
        .encode("a\u{1f642}b", SequenceTokens::Add)
        .unwrap();
    let mut detokenizer = Detokenizer::new(tokenizer, SpecialText::Skip);
    let pieces: Vec<_> = ids
        .iter()
        .map(|id| detokenizer.push(&[*id]).unwrap())
        .collect();
    let pieces: Vec<_> = pieces.iter().filter(|piece| !piece.is_empty()).collect();
    assert_eq!(pieces, ["a", "\u{1f642}", "b"]);
    assert!(ids.len() > 3);
    for n_tokens in 2..ids.len() - 1 {
        let mut detokenizer = Detokenizer::new(tokenizer, SpecialText::Skip);
        let shown = detokenizer.push(&ids[..n_tokens]).unwrap();
        let rest = detokenizer.finish().unwrap();
        assert_eq!(
            shown + &rest,
            tokenizer
                .decode(&ids[..n_tokens], SpecialText::Skip)
                .unwrap()
        );
    }
}

#[test]
fn vocabulary() {
    let processor = processor("llava-15");
    let tokenizer = processor.tokenizer();
    assert_eq!(tokenizer.vocab_size(), 562);
    assert_eq!(tokenizer.token_to_id("<image>"), Some(560));
    assert_eq!(tokenizer.token_to_id("no such token"), None);
    assert_eq!(tokenizer.id_to_token(600), None);
    assert_eq!(tokenizer.decode(&[600], SpecialText::Keep).unwrap(), "");
}
