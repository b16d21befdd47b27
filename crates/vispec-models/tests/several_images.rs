//! Several images anywhere in the chat: the answer is the same with and without a draft, and the
//! draft sees each image.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod reference;

use reference::{
    DRAFTERS, Decoding, VISPEC, copy_of, fixtures, floats, image_of, load, load_dirs, shape,
};
use serde_json::{Value, json};
use vispec_core::{Ask, DraftModel, Prompt, TargetModel};
use vispec_models::draft::NeuralDraft;
use vispec_models::{Draft, DtypeChoice, EncodedPrompt, Engine, Method};
use vispec_processor::{DecodedImage, Messages};

/// Creates a message with content parts; `"<image>"` represents an image.
fn message(role: &str, parts: &[&str]) -> Value {
    let parts = parts.iter().map(|part| match *part {
        "<image>" => json!({"type": "image"}),
        text => json!({"type": "text", "text": text}),
    });
    json!({"role": role, "content": parts.collect::<Vec<_>>()})
}

/// Chats, each with a description.
fn chats() -> Vec<(&'static str, Value)> {
    let user = |parts: &[&str]| message("user", parts);
    let assistant = |text| message("assistant", &[text]);
    let ask = "Describe the image briefly.";
    vec![
        (
            "adjacent images",
            json!([user(&["<image>", "<image>", ask])]),
        ),
        ("an image after the text", json!([user(&[ask, "<image>"])])),
        (
            "text between images",
            json!([user(&["<image>", "This is one.", "<image>", ask])]),
        ),
        (
            "images in several turns",
            json!([
                user(&["<image>", ask]),
                assistant("A large red circle."),
                user(&["<image>", "And this one?"]),
            ]),
        ),
        (
            "a turn without an image at the end",
            json!([
                user(&["<image>", ask]),
                assistant("A large red circle."),
                user(&["What is two plus three?"]),
            ]),
        ),
        (
            "a system message and three images",
            json!([
                message("system", &["You are brief."]),
                user(&["<image>", "<image>", "<image>", ask]),
            ]),
        ),
    ]
}

/// Returns the images of a chat, which have different sizes.
fn images(model: &str, n_images: usize) -> Vec<DecodedImage> {
    ["img-short", "img-large", "img-long"]
        .iter()
        .cycle()
        .take(n_images)
        .map(|case| image_of(&format!("{model}/{case}")))
        .collect()
}

fn encode(engine: &Engine, model: &str, chat: &Value) -> EncodedPrompt {
    let messages = Messages::from_json_value(chat).unwrap();
    let images = images(model, messages.n_images());
    engine.encode(&messages, &images).unwrap().0
}

fn neural_draft(engine: &Engine, draft: &str) -> NeuralDraft {
    let dir = fixtures().join("drafts").join(draft);
    match Draft::load(&dir, engine.target()).unwrap() {
        Draft::Neural(_, draft) => draft,
        Draft::Medusa(_) => panic!("{draft} is not a network"),
    }
}

#[test]
fn answers_do_not_depend_on_the_drafter() {
    for (target, draft, method) in DRAFTERS {
        let engine = load(target, draft, DtypeChoice::F32);
        let mut accepted = 0;
        for (what, chat) in chats() {
            let prompt = encode(&engine, target, &chat);
            let decode = Decoding::greedy(24);
            let plain = decode.answer(&engine, &prompt, Method::None, shape(3, 8, 30));
            let found = decode.answer(&engine, &prompt, method, shape(3, 8, 30));
            assert_eq!(found.tokens, plain.tokens, "{target}, {method}: {what}");
            accepted += found.stats.accepted_per_cycle().iter().sum::<u32>();
        }
        assert!(accepted > 0, "{target}, {method}: nothing was accepted");
    }
}

/// Each image takes `queries - 1` rows in the draft's cache, wherever it is in the chat.
#[test]
fn every_image_is_compressed() {
    for (target, draft_name) in VISPEC {
        let engine = load(target, None, DtypeChoice::F32);
        let draft = neural_draft(&engine, draft_name);
        let n_queries = 2;
        for (what, chat) in chats() {
            let prompt = encode(&engine, target, &chat);
            let runs = prompt.image_runs();
            let image_tokens: usize = runs.iter().map(ExactSizeIterator::len).sum();
            let mut cache = engine.target().new_cache().unwrap();
            let output = engine.target().prefill(&prompt, &mut cache).unwrap();
            let mut session = draft.session();
            session
                .begin(&prompt, output.features, 5, Ask::best(8))
                .unwrap();
            let n_tokens = prompt.token_ids().len();
            let rows = n_tokens - image_tokens + runs.len() * (n_queries - 1);
            assert_eq!(
                session.committed(),
                Some((rows, n_tokens)),
                "{target}: {what}"
            );
        }
    }
}

/// Upstream does not pass the image to the draft of LLaVA-1.5.
#[test]
fn every_draft_sees_every_image() {
    for (target, draft_name) in VISPEC {
        let engine = load(target, None, DtypeChoice::F32);
        let draft = neural_draft(&engine, draft_name);
        let messages = Messages::from_prompt(None, "What are these?", 2);
        let image = image_of(&format!("{target}/img-short"));
        let inverted = image.rgb().iter().map(|value| 255 - value).collect();
        let other = DecodedImage::from_rgb8(image.size(), inverted).unwrap();
        let prompt = |images: [&DecodedImage; 2]| {
            let images = images.map(Clone::clone);
            engine.encode(&messages, &images).unwrap().0
        };
        let base = prompt([&image, &image]);
        let mut cache = engine.target().new_cache().unwrap();
        let features = engine.target().prefill(&base, &mut cache).unwrap().features;
        // The target's hidden states stay the same; only the draft's own input differs.
        let output = |prompt: &EncodedPrompt| {
            let mut session = draft.session();
            session
                .begin(prompt, features.clone(), 5, Ask::best(8))
                .unwrap();
            let output = floats(session.last_output().unwrap());
            let hidden = engine.target().hidden();
            output[output.len() - hidden..].to_vec()
        };
        let expected = output(&base);
        assert_eq!(output(&base), expected);
        for changed in [[&other, &image], [&image, &other]] {
            assert_ne!(output(&prompt(changed)), expected, "{target}");
        }
    }
}

/// A chat template that contains only the parts puts an image at the very start or end of the
/// prompt.
#[test]
fn images_at_the_very_start_and_end() {
    for (target, draft_name) in VISPEC {
        let dir = copy_of(&format!("models/{target}"));
        let placeholder = if target.starts_with("qwen") {
            "<|image_pad|>"
        } else {
            "<image>"
        };
        let template = format!(
            "{{% for part in messages[0].content %}}{{% if part.type == 'image' %}}{placeholder}\
             {{% else %}}{{{{ part.text }}}}{{% endif %}}{{% endfor %}}"
        );
        std::fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
        let draft = fixtures().join("drafts").join(draft_name);
        let engine = load_dirs(dir.path().to_owned(), Some(draft), DtypeChoice::F32);
        let ask = "Describe the image briefly.";
        for parts in [
            &["<image>", ask][..],
            &[ask, "<image>"],
            &["<image>"],
            &["<image>", "<image>"],
            &["<image>", ask, "<image>"],
        ] {
            let prompt = encode(&engine, target, &json!([message("user", parts)]));
            // LLaVA's tokenizer adds a token at the start.
            if parts[0] == "<image>" {
                assert!(prompt.image_runs()[0].start <= 1);
            }
            if parts.last() == Some(&"<image>") {
                let last = prompt.image_runs().last().unwrap();
                assert_eq!(last.end, prompt.token_ids().len());
            }
            let decode = Decoding::greedy(16);
            let method = engine.default_method();
            let plain = decode.answer(&engine, &prompt, Method::None, shape(3, 8, 30));
            let found = decode.answer(&engine, &prompt, method, shape(3, 8, 30));
            assert_eq!(found.tokens, plain.tokens, "{target}: {parts:?}");
        }
    }
}
