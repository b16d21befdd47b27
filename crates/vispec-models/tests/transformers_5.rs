//! Checkpoints in the format of transformers 5, which has other files, config fields and weight
//! names.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod reference;

use std::fs;
use std::path::Path;

use reference::{Decoding, fixtures, load_dirs, question, shape};
use safetensors::SafeTensors;
use vispec_core::Prompt;
use vispec_models::{DtypeChoice, Engine};

/// The models, and a draft for each.
const MODELS: [(&str, &str); 3] = [
    ("qwen-tied", "qwen-tied-q2"),
    ("llava-15", "llava-15-q2"),
    ("llava-next", "llava-next-q2"),
];

/// Converts a weight name to that of the model's class, which `save_original_format=False` writes.
fn newest_name(name: &str) -> String {
    if let Some(rest) = name.strip_prefix("vision_tower.vision_model.") {
        return format!("model.vision_tower.{rest}");
    }
    if let Some(rest) = name.strip_prefix("language_model.") {
        return match rest.strip_prefix("model.") {
            Some(rest) => format!("model.language_model.{rest}"),
            None => rest.to_owned(),
        };
    }
    match name.strip_prefix("model.") {
        Some(rest) => format!("model.language_model.{rest}"),
        None => format!("model.{name}"),
    }
}

/// Writes a checkpoint with the text files of transformers 5.
fn write_checkpoint(dir: &Path, model: &str, name: impl Fn(&str) -> String) {
    let old = fixtures().join("models").join(model);
    // Only Qwen's tokenizer is saved differently by transformers 5.
    fs::copy(old.join("tokenizer.json"), dir.join("tokenizer.json")).unwrap();
    for entry in fs::read_dir(fixtures().join("transformers-5").join(model)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, dir.join(path.file_name().unwrap())).unwrap();
    }
    let bytes = fs::read(old.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let views = file.iter().map(|(old_name, view)| (name(old_name), view));
    let path = dir.join("model.safetensors");
    safetensors::serialize_to_file(views.collect::<Vec<_>>(), None, &path).unwrap();
}

/// Returns the prompt, the answer and the acceptance.
fn trace(engine: &Engine, model: &str) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
    let prompt = question(engine, model, "Describe the image in detail.");
    let method = engine.default_method();
    let found = Decoding::greedy(24).answer(engine, &prompt, method, shape(3, 8, 30));
    let accepted = found.stats.accepted_per_cycle().to_vec();
    (prompt.token_ids().to_vec(), found.tokens, accepted)
}

#[test]
fn they_answer_as_the_checkpoints_that_they_were_made_of() {
    for (model, draft) in MODELS {
        let draft = fixtures().join("drafts").join(draft);
        let trace_of = |dir: &Path| {
            let engine = load_dirs(dir.to_owned(), Some(draft.clone()), DtypeChoice::Auto);
            trace(&engine, model)
        };
        let expected = trace_of(&fixtures().join("models").join(model));
        let same_names = tempfile::tempdir().unwrap();
        write_checkpoint(same_names.path(), model, str::to_owned);
        assert_eq!(trace_of(same_names.path()), expected, "{model}");
        let newest_names = tempfile::tempdir().unwrap();
        write_checkpoint(newest_names.path(), model, newest_name);
        assert_eq!(
            trace_of(newest_names.path()),
            expected,
            "{model}, newest names"
        );
    }
}
