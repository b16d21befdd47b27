//! Cases of EAGLE-3 drafts.

use std::fs;
use std::path::PathBuf;

use serde::Deserialize;
use tempfile::TempDir;
use vispec_core::TokenId;
use vispec_models::{EncodedPrompt, Engine};

use super::qwen3::Case as Qwen3Case;
use super::stored::{Stored, rewrite};
use super::{Case as TargetCase, Numbers, Tensors, copy_of, fixtures};

/// The target states that the `qwen-tied` drafts read.
pub const STATES: [usize; 3] = [1, 2, 3];

pub const DIALECTS: [&str; 5] = [
    "sglang",
    "vllm-mrope",
    "speculators",
    "speculators-norm-before-fc",
    QWEN3,
];

/// The dialect of the draft whose target is a Qwen3-VL model.
pub const QWEN3: &str = "vllm-mrope-qwen3vl";

/// Prompts of the other dialects.
pub const PROMPTS: [&str; 3] = ["text-only", "img-short", "multi-turn"];

/// Returns the prompts of a dialect.
pub fn prompts(dialect: &str) -> [&'static str; 3] {
    match dialect {
        QWEN3 => ["text-only", "img-small", "system-two-images-multi-turn"],
        _ => PROMPTS,
    }
}

/// Returns the target states that the draft of a dialect reads.
pub fn states(dialect: &str) -> [usize; 3] {
    match dialect {
        QWEN3 => [1, 3, 4],
        _ => STATES,
    }
}

/// Returns the target of the draft of a dialect.
pub fn target(dialect: &str) -> &'static str {
    match dialect {
        QWEN3 => "qwen3-untied",
        _ => "qwen-tied",
    }
}

/// The fields of `case.json` that tests read.
#[derive(Deserialize)]
pub struct Case {
    pub ar_ids: Vec<TokenId>,
    pub ar_ids_continued: Vec<TokenId>,
    pub acceptance_len: Vec<usize>,
    pub acceptance_stable_under_noise: bool,
    pub variants: Vec<String>,
}

/// Reads a case of a dialect and its tensors.
pub fn case(dialect: &str, prompt: &str) -> (Case, Tensors) {
    let dir = fixtures().join("eagle3/cases").join(dialect).join(prompt);
    let text = fs::read_to_string(dir.join("case.json")).unwrap();
    let case = serde_json::from_str(&text).unwrap();
    (case, Tensors::read(&dir.join("tensors.safetensors")))
}

/// Returns the directory of the draft of a dialect.
pub fn draft_dir(dialect: &str) -> PathBuf {
    let target = target(dialect);
    fixtures().join(format!("drafts/{target}-eagle3-{dialect}"))
}

/// Returns the prompt of the `qwen-tied` case with this name.
pub fn prompt(engine: &Engine, name: &str) -> EncodedPrompt {
    TargetCase::read(&format!("qwen-tied/{name}")).encode(engine)
}

/// Returns the prompt of the case with this name for the dialect's target.
pub fn prompt_of(dialect: &str, engine: &Engine, name: &str) -> EncodedPrompt {
    match dialect {
        QWEN3 => Qwen3Case::read(&format!("qwen3-untied/{name}")).encode(engine),
        _ => prompt(engine, name),
    }
}

/// Returns the answer to a prompt of `qwen-tied` and, for all tokens but the last, the three
/// concatenated states.
pub fn aux_hidden(prompt: &str) -> (Vec<TokenId>, Vec<f64>) {
    read_aux_hidden(prompt)
}

/// Like [`aux_hidden`], but for the target of a dialect.
pub fn aux_hidden_of(dialect: &str, prompt: &str) -> (Vec<TokenId>, Vec<f64>) {
    match dialect {
        QWEN3 => read_aux_hidden(&format!("qwen3-untied-{prompt}")),
        _ => read_aux_hidden(prompt),
    }
}

fn read_aux_hidden(prompt: &str) -> (Vec<TokenId>, Vec<f64>) {
    let file = format!("eagle3/prompts/{prompt}.safetensors");
    let tensors = Tensors::read(&fixtures().join(file));
    let ids = &tensors.get("ar_ids").unwrap().values;
    let ids = ids.iter().map(|&id| id as TokenId).collect();
    (ids, tensors.get("aux_hidden").unwrap().values.clone())
}

/// Creates the draft of a dialect with a vision adaptor of random weights. Its fusion changes
/// hidden states only slightly, so that some of its tokens are still accepted.
pub fn vision_draft(dialect: &str, n_queries: usize) -> TempDir {
    let copy = copy_of(&format!("drafts/qwen-tied-eagle3-{dialect}"));
    let mut numbers = Numbers(31);
    let mut random = |n: usize, scale: f32| -> Vec<f32> {
        let value = |_| scale * (numbers.below(2001) as f32 / 1000.0 - 1.0);
        (0..n).map(value).collect()
    };
    let square = [HIDDEN, HIDDEN];
    let [query, keys, values, output] = [n_queries * HIDDEN, 1, 1, 1].map(|n| match n {
        1 => random(HIDDEN * HIDDEN, 0.2),
        n => random(n, 1.0),
    });
    let mut fusion = random(2 * HIDDEN * HIDDEN, 0.02);
    for row in 0..HIDDEN {
        fusion[row * 2 * HIDDEN + row] += 1.0;
    }
    rewrite(copy.path(), |mut tensors| {
        tensors.extend([
            Stored::of_floats("imadpt.q", &[n_queries, HEADS, HIDDEN / HEADS], &query),
            Stored::of_floats("imadpt.k_proj.weight", &square, &keys),
            Stored::of_floats("imadpt.v_proj.weight", &square, &values),
            Stored::of_floats("imadpt.o_proj.weight", &square, &output),
            Stored::of_floats("img_fc.weight", &[HIDDEN, 2 * HIDDEN], &fusion),
        ]);
        tensors
    });
    copy
}

/// Hidden size of those drafts in the fixtures whose heads together are as wide as the hidden
/// states.
pub const HIDDEN: usize = 64;
pub const HEADS: usize = 4;
