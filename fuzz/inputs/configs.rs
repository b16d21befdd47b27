//! The JSON files of a checkpoint, of any content: the first byte chooses which one. The others are
//! those of a fixture.

use std::path::Path;

use vispec_models::draft::DraftConfig;
use vispec_models::llava::LlavaConfig;
use vispec_models::qwen2_5_vl::QwenConfig;
use vispec_processor::{Messages, Processor};

macro_rules! fixture {
    ($($name:literal),*) => {
        [$((
            $name,
            include_bytes!(concat!("../../fixtures/models/qwen-tied/", $name)).as_slice(),
        )),*]
    };
}

const FILES: [(&str, &[u8]); 6] = fixture![
    "config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "chat_template.json",
    "generation_config.json",
    "tokenizer.json"
];

fn read(dir: &Path) -> bool {
    let configs = [
        QwenConfig::read(dir).is_ok(),
        LlavaConfig::read(dir).is_ok(),
        DraftConfig::read(dir).is_ok(),
    ];
    let messages = Messages::from_prompt(None, "What is it?", 0);
    let prepared = Processor::from_dir(dir).map(|processor| processor.prepare(&messages, &[]));
    prepared.is_ok_and(|prompt| prompt.is_ok()) && configs.contains(&true)
}

/// Whether a checkpoint with this file is of some model and takes a question.
pub fn check(data: &[u8]) -> bool {
    let Some((&kind, content)) = data.split_first() else {
        return false;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let chosen = usize::from(kind) % FILES.len();
    for (index, (name, whole)) in FILES.into_iter().enumerate() {
        let content = if index == chosen { content } else { whole };
        std::fs::write(dir.path().join(name), content).expect("a temporary file");
    }
    read(dir.path())
}
