//! JSON files of a checkpoint with any content: the first byte chooses the file. The other files
//! are those of a fixture.

use std::path::Path;

use vispec_models::draft::{DraftConfig, Eagle3Config};
use vispec_models::llava::LlavaConfig;
use vispec_models::qwen2_5_vl::QwenConfig;
use vispec_processor::{Messages, Processor};

macro_rules! fixture {
    ($model:literal) => {
        fixture![
            $model,
            "config.json",
            "preprocessor_config.json",
            "tokenizer_config.json",
            "chat_template.json",
            "generation_config.json",
            "tokenizer.json"
        ]
    };
    ($model:literal, $($name:literal),*) => {
        [$((
            $name,
            include_bytes!(concat!("../../fixtures/models/", $model, "/", $name)).as_slice(),
        )),*]
    };
}

type Files = [(&'static str, &'static [u8]); 6];

const MODELS: [Files; 2] = [fixture!("qwen-tied"), fixture!("llava-next")];

/// Returns whether the directory has a valid config of any model or draft.
fn is_config(dir: &Path) -> bool {
    let configs = [
        QwenConfig::read(dir).is_ok(),
        LlavaConfig::read(dir).is_ok(),
        DraftConfig::read(dir).is_ok(),
        Eagle3Config::read(dir).is_ok(),
    ];
    configs.contains(&true)
}

fn takes_a_question(dir: &Path) -> bool {
    let messages = Messages::from_prompt(None, "What is it?", 0);
    let prepared = Processor::from_dir(dir).map(|processor| processor.prepare(&messages, &[]));
    prepared.is_ok_and(|prompt| prompt.is_ok())
}

/// Returns whether a config is valid for any model or draft or, for other files, whether the
/// checkpoint can process a question.
pub(crate) fn check(data: &[u8]) -> bool {
    let Some((&kind, content)) = data.split_first() else {
        return false;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let dir = dir.path();
    let kind = usize::from(kind);
    let files = MODELS[kind / MODELS[0].len() % MODELS.len()];
    let chosen = kind % files.len();
    for (index, (name, whole)) in files.into_iter().enumerate() {
        let content = if index == chosen { content } else { whole };
        std::fs::write(dir.join(name), content).expect("a temporary file");
    }
    let asked = takes_a_question(dir);
    if chosen == 0 { is_config(dir) } else { asked }
}
