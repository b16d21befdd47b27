//! Every field of every config with invalid values: the result is an error or a model, never a
//! panic.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod reference;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use reference::{Decoding, copy_of, fixtures, image_of, shape};
use serde_json::{Value, json};
use vispec_models::{DraftVocab, DtypeChoice, Engine, EngineOptions, KvPrecision, LayerIds};
use vispec_processor::Messages;

/// Collects the paths of all values below `value`.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    let below: Vec<(String, &Value)> = match value {
        Value::Object(fields) => fields.iter().map(|(k, v)| (k.clone(), v)).collect(),
        Value::Array(items) => {
            let items = items.iter().take(1).enumerate();
            items.map(|(idx, v)| (idx.to_string(), v)).collect()
        }
        _ => Vec::new(),
    };
    if !path.is_empty() {
        found.push(path.to_owned());
    }
    for (key, value) in below {
        leaves(value, &format!("{path}/{key}"), found);
    }
}

fn values() -> Vec<Value> {
    vec![
        Value::Null,
        json!(0),
        json!(-1),
        json!(3),
        json!(100_000),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!([[0, 0]]),
    ]
}

/// Loads a model, reads a prompt with an image and generates a short answer. Errors are allowed.
fn try_to_answer(
    target: &Path,
    draft: &Path,
    image: &str,
) -> Result<(), vispec_models::ModelError> {
    let engine = Engine::load(&EngineOptions {
        target: target.to_owned(),
        draft: Some(draft.to_owned()),
        draft_vocab: DraftVocab::Auto,
        draft_layer_ids: LayerIds::Auto,
        device: reference::test_device().open()?,
        dtype: DtypeChoice::F32,
        kv: KvPrecision::Auto,
    })?;
    let messages = Messages::from_prompt(None, "What is this?", 1);
    let (prompt, _) = engine.encode(&messages, &[image_of(image)])?;
    let decoding = Decoding::greedy(4);
    let _ = decoding.try_answer(
        &engine,
        &prompt,
        engine.default_method(),
        shape(1, 3, 6),
        &mut (),
    );
    Ok(())
}

fn check(model: &str, draft: &str, role: &str, file: &str) {
    let image = format!("{model}/img-short");
    let (model, draft) = (format!("models/{model}"), format!("drafts/{draft}"));
    let changed = copy_of(if role == "draft" { &draft } else { &model });
    let path = changed.path().join(file);
    let original: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let mut fields = Vec::new();
    leaves(&original, "", &mut fields);
    let mut panics = Vec::new();
    let mut refused = 0;
    for field in fields {
        for value in values() {
            let mut config = original.clone();
            *config.pointer_mut(&field).unwrap() = value.clone();
            std::fs::write(&path, config.to_string()).unwrap();
            let fixed = fixtures();
            let (target, draft) = if role == "draft" {
                (fixed.join(&model), changed.path().to_owned())
            } else {
                (changed.path().to_owned(), fixed.join(&draft))
            };
            let run = AssertUnwindSafe(|| try_to_answer(&target, &draft, &image));
            match catch_unwind(run) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    assert!(!error.to_string().is_empty());
                    refused += 1;
                }
                Err(_) => panics.push(format!("{field} = {value}")),
            }
        }
    }
    assert!(refused > 0, "{model}, {role}, {file}: nothing was refused");
    assert!(
        panics.is_empty(),
        "{model}, {role}, {file} panicked: {panics:#?}"
    );
}

#[test]
fn configs_of_qwen() {
    check("qwen-tied", "qwen-tied-q2", "target", "config.json");
}

#[test]
fn configs_of_llava_next() {
    check("llava-next", "llava-next-q2", "target", "config.json");
}

#[test]
fn configs_of_drafts() {
    check("qwen-tied", "qwen-tied-q2", "draft", "config.json");
    check("qwen-untied", "qwen-untied-medusa", "draft", "config.json");
}

#[test]
fn image_processors() {
    check(
        "qwen-tied",
        "qwen-tied-q2",
        "target",
        "preprocessor_config.json",
    );
    check(
        "llava-next",
        "llava-next-q2",
        "target",
        "preprocessor_config.json",
    );
}

#[test]
fn generation_configs() {
    check(
        "qwen-tied",
        "qwen-tied-q2",
        "target",
        "generation_config.json",
    );
}
