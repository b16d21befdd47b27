//! Texts that are far too long are refused before they are tokenised as a whole; texts that fit are
//! never refused.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod common;

use std::cell::Cell;
use std::time::{Duration, Instant};

use common::{copy_of, edit, processor};
use proptest::prelude::*;
use serde_json::json;
use vispec_processor::{
    Content, Message, Messages, Processor, ProcessorError, SequenceTokens, Tokenizer,
};

/// Composes to fewer bytes than anything else: to at most half of what the bound assumes for ASCII.
const COMPOSING: &str = "\u{1fbe}\u{308}\u{301}";

fn n_tokens(tokenizer: &Tokenizer, text: &str) -> usize {
    let ids = tokenizer.encode(text, SequenceTokens::Omit);
    ids.unwrap().len()
}

/// Copies a model and adds a token of `n` blanks, its longest.
fn with_long_token(model: &str, n: usize) -> (tempfile::TempDir, Processor) {
    let dir = copy_of(model);
    let token = json!({
        "id": 900, "content": " ".repeat(n), "single_word": false, "lstrip": false,
        "rstrip": false, "normalized": false, "special": false,
    });
    let file = dir.path().join("tokenizer.json");
    let mut root: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    root["added_tokens"].as_array_mut().unwrap().push(token);
    std::fs::write(&file, root.to_string()).unwrap();
    let processor = Processor::from_dir(dir.path()).unwrap();
    (dir, processor)
}

#[test]
fn a_text_of_thirty_megabytes_is_refused_at_once() {
    for model in common::MODELS {
        let processor = processor(model);
        let text = "a ".repeat(15 << 20);
        let started = Instant::now();
        let error = processor.prepare_text(&text).unwrap_err();
        let limit = processor.context_limit();
        match error {
            ProcessorError::TextTooLong {
                bytes,
                least_tokens,
                limit: told,
            } => {
                assert_eq!((bytes, told), (text.len(), limit), "{model}");
                assert!(
                    limit < least_tokens && least_tokens <= text.len(),
                    "{model}"
                );
            }
            error => panic!("{model}: {error}"),
        }
        let chat = Messages::from_prompt(None, &text, 0);
        let error = processor.prepare(&chat, &[]).unwrap_err();
        assert!(
            matches!(error, ProcessorError::TextTooLong { .. }),
            "{model}: {error}"
        );
        // Tokenising the whole text takes minutes without optimisation.
        assert!(started.elapsed() < Duration::from_secs(20), "{model}");
    }
}

#[test]
fn where_bytes_tell_little_tokens_are_counted_as_far_as_needed() {
    for model in ["qwen-tied", "llava-15"] {
        let (_dir, processor) = with_long_token(model, 1024);
        let limit = processor.context_limit();
        // The number of bytes would allow for 3072 tokens.
        let text = "a ".repeat(3 << 19);
        let started = Instant::now();
        let error = processor.prepare_text(&text).unwrap_err();
        let ProcessorError::TextTooLong { least_tokens, .. } = error else {
            panic!("{model}: {error}");
        };
        assert!(
            (limit + 1..2 * limit + (64 << 10)).contains(&least_tokens),
            "{least_tokens}"
        );
        assert!(started.elapsed() < Duration::from_secs(20), "{model}");
    }
}

#[test]
fn the_longest_text_that_fits_is_taken() {
    for model in ["qwen-tied", "llava-15"] {
        let (_dir, processor) = with_long_token(model, 1000);
        let processor = processor.with_context_limit(300);
        let fits = " ".repeat(299 * 1000);
        let prompt = processor.prepare_text(&fits).unwrap();
        let n_tokens = prompt.token_ids.len();
        assert!((299..=300).contains(&n_tokens), "{model}: {n_tokens}");
        let error = processor.prepare_text(&" ".repeat(400 * 1000)).unwrap_err();
        assert!(
            matches!(error, ProcessorError::TextTooLong { .. }),
            "{model}: {error}"
        );
    }
}

#[test]
fn what_composes_is_counted_as_composed() {
    let processor = processor("qwen-tied");
    let text = COMPOSING.repeat(1000);
    let n_tokens = n_tokens(processor.tokenizer(), &text);
    let processor = processor.with_context_limit(n_tokens);
    assert_eq!(
        processor.prepare_text(&text).unwrap().token_ids.len(),
        n_tokens
    );
}

#[test]
fn tokenizers_that_drop_text_are_not_judged_by_bytes() {
    let strip = json!({"type": "Strip", "strip_left": true, "strip_right": true});
    let removed = json!({"type": "Split", "pattern": {"String": " "}, "behavior": "Removed",
        "invert": false});
    for (pointer, step) in [("/normalizer", strip), ("/pre_tokenizer", removed)] {
        let dir = copy_of("llava-15");
        edit(dir.path(), "tokenizer.json", pointer, step);
        let processor = Processor::from_dir(dir.path())
            .unwrap()
            .with_context_limit(10);
        let text = format!("a{}", " ".repeat(1 << 20));
        processor.prepare_text(&text).unwrap();
    }
}

/// A text that the library's regular expressions fail on is an error, not a panic.
#[test]
fn a_text_that_cannot_be_cut_into_words_is_an_error() {
    let tokenizer = processor("qwen-tied").tokenizer().clone();
    let blanks = " ".repeat(11_000_000);
    let error = tokenizer.encode(&blanks, SequenceTokens::Omit).unwrap_err();
    assert!(
        matches!(
            error,
            ProcessorError::Tokenize {
                action: "encode",
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn a_text_that_nobody_waits_for_is_not_looked_through() {
    let (_dir, processor) = with_long_token("qwen-tied", 64);
    let processor = processor.with_context_limit(1 << 20);
    let asked = Cell::new(0);
    let wanted = || {
        asked.set(asked.get() + 1);
        asked.get() < 3
    };
    let text = "a ".repeat(4 << 20);
    let error = processor.prepare_text_while(&text, &wanted).unwrap_err();
    assert!(matches!(error, ProcessorError::Unwanted), "{error}");
    assert_eq!(asked.get(), 3);
}

#[test]
fn messages_too_many_for_the_template_are_too_long() {
    let message = |index: usize| Message {
        role: ["user", "assistant"][index % 2].to_owned(),
        content: Content::Text("x".to_owned()),
    };
    let messages = Messages::new((0..50_001).map(message).collect()).unwrap();
    for model in common::MODELS {
        let error = processor(model).prepare(&messages, &[]).unwrap_err();
        assert!(
            matches!(error, ProcessorError::TextTooLong { .. }),
            "{model}: {error}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Neither the bound for the whole text nor the counts of its pieces exceed the real number of
    /// tokens.
    #[test]
    fn no_text_that_fits_is_refused(
        words in prop::collection::vec("[a-z]{1,9}|[0-9]{1,5}|\\PC{1,6}|[ \n\t]{1,9}|\u{1fbe}\u{308}\u{301}|<\\|im_end\\|>|</s>", 1..40),
        between in prop::sample::select(vec!["", " ", "\n"]),
        kilobytes in 1..160_usize,
    ) {
        let part = words.join(between) + between;
        let text = part.repeat((kilobytes << 10).div_ceil(part.len()));
        for model in ["qwen-tied", "llava-15"] {
            let tokenizer = processor(model).tokenizer().clone();
            let n_tokens = n_tokens(&tokenizer, &text);
            prop_assert!(tokenizer.check_length(&text, n_tokens, &|| true).is_ok(), "{model}");
        }
    }
}
