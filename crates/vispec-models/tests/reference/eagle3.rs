//! Cases of EAGLE-3 drafts.

use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use vispec_core::TokenId;
use vispec_models::{EncodedPrompt, Engine};

use super::{Case as TargetCase, Tensors, fixtures};

/// The target states that all carried drafts read.
pub const STATES: [usize; 3] = [1, 2, 3];

pub const DIALECTS: [&str; 4] = [
    "sglang",
    "vllm-mrope",
    "speculators",
    "speculators-norm-before-fc",
];

pub const PROMPTS: [&str; 3] = ["text-only", "img-short", "multi-turn"];

/// The fields of a `case.json` that tests read.
#[derive(Deserialize)]
pub struct Case {
    pub ar_ids: Vec<TokenId>,
    pub ar_ids_continued: Vec<TokenId>,
    pub acceptance_len: Vec<usize>,
    pub acceptance_stable_under_noise: bool,
    pub variants: Vec<String>,
}

/// A case of a dialect and its tensors.
pub fn case(dialect: &str, prompt: &str) -> (Case, Tensors) {
    let dir = fixtures().join("eagle3/cases").join(dialect).join(prompt);
    let text = fs::read_to_string(dir.join("case.json")).unwrap();
    let case = serde_json::from_str(&text).unwrap();
    (case, Tensors::read(&dir.join("tensors.safetensors")))
}

/// Directory of the draft of a dialect.
pub fn draft_dir(dialect: &str) -> PathBuf {
    fixtures().join(format!("drafts/qwen-tied-eagle3-{dialect}"))
}

/// The prompt of the case of this name.
pub fn prompt(engine: &Engine, name: &str) -> EncodedPrompt {
    TargetCase::read(&format!("qwen-tied/{name}")).encode(engine)
}

/// The answer of a prompt, and the three states of all tokens but the last, side by side.
pub fn aux_hidden(prompt: &str) -> (Vec<TokenId>, Vec<f64>) {
    let file = format!("eagle3/prompts/{prompt}.safetensors");
    let tensors = Tensors::read(&fixtures().join(file));
    let ids = &tensors.get("ar_ids").unwrap().values;
    let ids = ids.iter().map(|&id| id as TokenId).collect();
    (ids, tensors.get("aux_hidden").unwrap().values.clone())
}
