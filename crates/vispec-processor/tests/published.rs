//! Compares prompts of published text files with those of transformers. `VISPEC_PUBLISHED` names a
//! directory that contains the folders listed below. Missing folders are skipped, with a printed
//! line.
#![allow(clippy::unwrap_used, reason = "a test may panic, its helpers too")]
#![allow(clippy::print_stderr, reason = "skipped folders are reported")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use vispec_processor::{GenerationPrompt, Messages, Processor, SequenceTokens};

const VARIABLE: &str = "VISPEC_PUBLISHED";

/// Each folder, and the folder that provides the files it lacks.
const FOLDERS: [(&str, &str); 4] = [
    ("Qwen2.5-VL-7B-Instruct", "Qwen2.5-VL-7B-Instruct"),
    ("llava-1.5-7b-hf", "llava-1.5-7b-hf"),
    // A copy whose chat template has Windows line endings.
    ("llava-1.5-7b-hf-crlf", "llava-1.5-7b-hf"),
    // Processor and tokenizer as saved by transformers 5.
    ("llava-1.5-v5-saved", "llava-1.5-7b-hf"),
];

/// Files of the model rather than of its processor.
const OF_THE_MODEL: [&str; 2] = ["config.json", "generation_config.json"];

fn copy_missing(from: &Path, to: &Path, names: impl Fn(&str) -> bool) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let target = to.join(name);
        if path.is_file() && names(name) && !target.exists() {
            fs::copy(&path, target).unwrap();
        }
    }
}

/// Copies the checkpoint in `folder` to a temporary directory and completes it from `complete`.
fn checkpoint(root: &Path, folder: &str, complete: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy_missing(&root.join(folder), dir.path(), |_| true);
    let has_tokenizer = dir.path().join("tokenizer.json").exists();
    copy_missing(&root.join(complete), dir.path(), |name| {
        !has_tokenizer || OF_THE_MODEL.contains(&name)
    });
    dir
}

/// Compares all conversations with those of transformers and returns their number.
fn compare(processor: &Processor, model: &str) -> usize {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/published/prompts.json");
    let cases: Vec<Value> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let cases: Vec<_> = cases.iter().filter(|case| case["model"] == model).collect();
    for case in &cases {
        let messages = Messages::from_json_value(&case["messages"]).unwrap();
        let template = processor.chat_template();
        let rendered = template.render(&messages, GenerationPrompt::Add).unwrap();
        assert_eq!(rendered, case["rendered"].as_str().unwrap());
        let ids = processor.tokenizer().encode(&rendered, SequenceTokens::Add);
        assert_eq!(serde_json::json!(ids.unwrap()), case["ids"], "{rendered}");
    }
    cases.len()
}

#[test]
fn prompts_are_those_of_transformers() {
    let Some(root) = std::env::var_os(VARIABLE).map(PathBuf::from) else {
        eprintln!("skipped: {VARIABLE} does not name a folder with published text files");
        return;
    };
    let mut n_compared = 0;
    for (folder, complete) in FOLDERS {
        if let Some(missing) = [folder, complete]
            .iter()
            .find(|name| !root.join(name).is_dir())
        {
            eprintln!("skipped: {} does not exist", root.join(missing).display());
            continue;
        }
        let dir = checkpoint(&root, folder, complete);
        let processor = Processor::from_dir(dir.path()).unwrap();
        let n_cases = compare(&processor, complete);
        assert!(n_cases > 0, "{complete}");
        eprintln!("{folder}: {n_cases} conversations");
        n_compared += 1;
    }
    assert!(
        n_compared > 0,
        "{} contains none of the folders",
        root.display()
    );
}
