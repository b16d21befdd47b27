//! The file that describes a sweep.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde::Deserialize;
use vispec_report::record::{Method, TotalToken};

/// The content of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SweepFile {
    /// Directory of the tasks' data.
    pub(super) data: PathBuf,
    pub(super) device: String,
    /// Number of samples to use from each task, from the first on.
    pub(super) prompts: u64,
    pub(super) max_new_tokens: u32,
    /// Tokens that drafts may propose, in the format of `--draft-vocab` of `evaluate`. All by
    /// default, so that acceptance can be compared with the reference's.
    pub(super) draft_vocab: Option<String>,
    pub(super) tasks: Vec<TaskEntry>,
    pub(super) temperatures: Vec<f32>,
    pub(super) seeds: Vec<u64>,
    pub(super) dtypes: Vec<String>,
    /// Targets with their drafts.
    #[serde(rename = "model")]
    pub(super) models: Vec<ModelEntry>,
    /// Grids of trees, which are concatenated.
    #[serde(rename = "tree", default)]
    pub(super) trees: Vec<TreeGrid>,
}

/// A task given by its name, optionally with its own number of samples.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "the name of a task, or { name = \"..\", prompts = .. }"
)]
pub(super) enum TaskEntry {
    Name(String),
    Some(SomeOfTask),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SomeOfTask {
    name: String,
    prompts: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelEntry {
    pub(super) target: String,
    /// Methods without a draft.
    #[serde(default)]
    pub(super) methods: Vec<Method>,
    /// Methods with a draft.
    #[serde(rename = "draft", default)]
    pub(super) drafts: Vec<DraftEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DraftEntry {
    pub(super) method: Method,
    /// Directory of a checkpoint. If it contains [`NUM_Q`], it stands for one checkpoint per value
    /// of `num_q`.
    dir: String,
    /// Numbers of learned queries of the checkpoints.
    #[serde(default)]
    num_q: Vec<u32>,
}

/// Placeholder for the number of learned queries in the name of a checkpoint.
const NUM_Q: &str = "{num_q}";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TreeGrid {
    pub(super) depth: Vec<u32>,
    pub(super) top_k: Vec<u32>,
    pub(super) total_token: Vec<TotalToken>,
}

impl SweepFile {
    /// Checks what the types cannot express. Errors start with the key at fault.
    pub(super) fn check(&self) -> Result<()> {
        for (key, len) in [
            ("tasks", self.tasks.len()),
            ("temperatures", self.temperatures.len()),
            ("seeds", self.seeds.len()),
            ("dtypes", self.dtypes.len()),
            ("model", self.models.len()),
        ] {
            if len == 0 {
                bail!("{key}: empty, expected at least one entry");
            }
        }
        if self.prompts == 0 {
            bail!("prompts: 0, expected at least 1");
        }
        for task in &self.tasks {
            let (name, prompts) = task.name_and_prompts(self.prompts);
            if prompts == 0 {
                bail!("tasks: prompts of {name}: 0, expected at least 1");
            }
        }
        if self.max_new_tokens == 0 {
            bail!("max_new_tokens: 0, expected at least 1");
        }
        for &temperature in &self.temperatures {
            if !temperature.is_finite() || temperature < 0.0 {
                bail!("temperatures: {temperature}, expected finite numbers of at least 0");
            }
        }
        for (idx, grid) in self.trees.iter().enumerate() {
            grid.check(idx)?;
        }
        for (idx, model) in self.models.iter().enumerate() {
            model.check(idx)?;
            if !model.drafts.is_empty() && self.trees.is_empty() {
                bail!("tree: missing, expected at least one because model[{idx}] has drafts");
            }
        }
        Ok(())
    }
}

impl TaskEntry {
    /// Returns the task and its number of samples; `usual` is the default.
    pub(super) fn name_and_prompts(&self, usual: u64) -> (&str, u64) {
        match self {
            Self::Name(name) => (name, usual),
            Self::Some(some) => (&some.name, some.prompts),
        }
    }
}

impl ModelEntry {
    fn check(&self, idx: usize) -> Result<()> {
        if self.methods.is_empty() && self.drafts.is_empty() {
            bail!("model[{idx}]: neither methods nor draft, expected at least one");
        }
        if let Some(method) = self.methods.iter().find(|method| method.has_network()) {
            bail!("model[{idx}].methods: {method} needs a draft, expected it in model.draft");
        }
        for draft in &self.drafts {
            draft.check(idx)?;
        }
        Ok(())
    }
}

impl DraftEntry {
    /// Returns the directories of the checkpoints.
    pub(super) fn dirs(&self) -> Vec<String> {
        if self.num_q.is_empty() {
            return vec![self.dir.clone()];
        }
        let numbers = self.num_q.iter();
        numbers
            .map(|num_q| self.dir.replace(NUM_Q, &num_q.to_string()))
            .collect()
    }

    fn check(&self, idx: usize) -> Result<()> {
        let Self { method, dir, .. } = self;
        if !method.has_network() {
            bail!("model[{idx}].draft: {method} takes no draft, expected it in methods");
        }
        match (dir.contains(NUM_Q), self.num_q.is_empty()) {
            (true, true) => {
                bail!("model[{idx}].draft.num_q: missing or empty, expected numbers for {dir}")
            }
            (false, false) => {
                bail!("model[{idx}].draft.dir: {dir}, expected {NUM_Q} in it to stand for num_q")
            }
            _ => Ok(()),
        }
    }
}

impl TreeGrid {
    fn check(&self, idx: usize) -> Result<()> {
        let lens = [self.depth.len(), self.top_k.len(), self.total_token.len()];
        for (key, len) in ["depth", "top_k", "total_token"].into_iter().zip(lens) {
            if len == 0 {
                bail!("tree[{idx}].{key}: empty, expected at least one entry");
            }
        }
        if self.top_k.contains(&0) {
            bail!("tree[{idx}].top_k: 0, expected at least 1");
        }
        Ok(())
    }
}
