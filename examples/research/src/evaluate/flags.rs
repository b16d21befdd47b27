//! Command-line flags that describe a cell.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use vispec_core::AutoTree;
use vispec_data::{ImageCheck, ReadOptions};
use vispec_report::ReportError;
use vispec_report::record::{CellSettings, Method, Shard, TotalToken, TreeSettings};

use vispec_models::{DraftEmbeds, KvPrecision, LayerIds, PositionsOf};

use crate::shortage::ShortageFlag;
use examples_answer::failure::Failure;
use examples_answer::flags::{LoadFlags, MAX_BATCH, ModelFlags, parse_draft_vocab};
use examples_answer::tree::{self, TreeFlags};

/// The cell to measure. Checkpoints, element type, device and task are recorded as typed.
#[derive(Args, Debug)]
pub struct EvaluateFlags {
    /// Checkpoint of the target: a directory, or an id on the Hugging Face hub
    #[arg(long, value_name = "DIR|HUB_ID")]
    target: String,
    /// Checkpoint of the draft: a directory, or an id on the Hugging Face hub
    #[arg(long, value_name = "DIR|HUB_ID")]
    draft: Option<String>,
    /// vispec, eagle2, eagle3 or medusa, each also with +lookup, prompt-lookup or none
    #[arg(long)]
    method: Method,
    /// Element type of the weights, as in `generate`
    #[arg(long, default_value = "auto")]
    dtype: String,
    /// flex (CPU), cuda or cuda:N, rocm or rocm:N, wgpu, vulkan, metal or tch
    #[arg(long, default_value = "flex")]
    device: String,
    /// Name of a task (see `tasks list`), or a TOML file that defines one
    #[arg(long, value_name = "NAME|FILE")]
    pub(super) task: String,
    /// Directory with a folder of files for each task, called like the task; drawn tasks need none
    #[arg(long, default_value = ".")]
    pub(super) data: PathBuf,
    /// Number of samples, from the task's first; by default all that the task selects
    #[arg(long, allow_negative_numbers = true)]
    pub(super) prompts: Option<u64>,
    /// Sampling temperature; 0 is greedy decoding
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true)]
    pub(super) temperature: f32,
    /// Seed of the sampling; the same for plain and speculative decoding
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub(super) seed: u64,
    /// Draft tree: drafting steps after the first; by default 3, or 7 with --total-token auto
    #[arg(long, allow_negative_numbers = true)]
    depth: Option<u32>,
    /// Draft tree: candidates per node, and nodes expanded per step
    #[arg(long, allow_negative_numbers = true)]
    top_k: Option<u32>,
    /// Draft tree: nodes that the target verifies, including the root, or auto; by default auto on
    /// the CPU and 30 elsewhere
    #[arg(long, value_name = "N|auto", allow_negative_numbers = true)]
    total_token: Option<TotalToken>,
    /// Maximum number of tokens per answer; by default the task's
    #[arg(long, allow_negative_numbers = true)]
    pub(super) max_new_tokens: Option<u32>,
    /// Tokens that the draft chooses among, as in `generate`; with all, acceptance can be compared
    /// with the reference
    #[arg(long, value_name = "auto|all|FILE|N", default_value = "auto")]
    draft_vocab: String,
    /// Answer only the samples whose index modulo N is I
    #[arg(long, value_name = "I/N", default_value = "0/1")]
    pub(super) shard: Shard,
    /// Number of unusable rows of the task's files to tolerate; they are listed and skipped
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    pub(super) max_bad_rows: usize,
    #[command(flatten)]
    shortage: ShortageFlag,
    /// File of measured pass costs; by default one in the user's cache directory
    #[arg(long, value_name = "FILE")]
    pub(super) calibration: Option<PathBuf>,
    /// Measure the tokens per second of --batch simultaneous answers and of one at a time, without
    /// records
    #[arg(long)]
    throughput: bool,
    /// Number of simultaneous answers
    #[arg(long, value_name = "N", default_value_t = 8, requires = "throughput", value_parser = clap::value_parser!(u16).range(1..=MAX_BATCH), allow_negative_numbers = true)]
    batch: u16,
    /// Directory of the cell; an unfinished cell is resumed
    #[arg(long, value_name = "DIR")]
    pub(super) out: PathBuf,
    /// Another draft tree and the directory of its cell; each prompt is answered with it, too, and
    /// compared with the same plain answer. Can be repeated
    #[arg(
        long,
        value_name = "DEPTH/TOP_K/TOTAL_TOKEN=DIR",
        conflicts_with = "throughput"
    )]
    also: Vec<OtherTree>,
}

/// Another tree to measure against the same plain answers.
#[derive(Debug, Clone)]
struct OtherTree {
    tree: TreeSettings,
    /// Directory of its cell.
    out: PathBuf,
}

impl FromStr for OtherTree {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((tree, out)) = text.split_once('=').filter(|(_, out)| !out.is_empty()) else {
            return Err("expected DEPTH/TOP_K/TOTAL_TOKEN=DIR".to_owned());
        };
        let tree = tree
            .parse()
            .map_err(|error: ReportError| error.to_string())?;
        Ok(Self {
            tree,
            out: out.into(),
        })
    }
}

/// A tree to measure, and the directory of its cell.
#[derive(Debug, Clone)]
pub(super) struct TreeCell {
    /// Absent if the method has no draft tree.
    pub(super) tree: Option<TreeSettings>,
    pub(super) out: PathBuf,
}

/// Defaults: upstream's flags, and the bounds of trees that are sized by cost.
const DEFAULT_DEPTH: u32 = 3;
const DEFAULT_AUTO_DEPTH: u32 = 7;
const DEFAULT_TOP_K: u32 = 8;

impl EvaluateFlags {
    /// Returns the number of simultaneous answers, if throughput is to be measured.
    pub(super) fn batch(&self) -> Option<usize> {
        self.throughput.then_some(usize::from(self.batch))
    }

    /// Returns the flags for loading models.
    ///
    /// # Errors
    /// Usage if a value is unknown, or method and draft cannot be combined.
    pub(super) fn models(&self) -> Result<ModelFlags, Failure> {
        if !self.method.has_network() && self.draft.is_some() {
            let message = format!("--method {} takes no --draft", self.method);
            return Err(Failure::Usage(message));
        }
        let flags = ModelFlags {
            target: self.target.clone(),
            load: LoadFlags {
                chat_template: None,
                draft: self.draft.clone(),
                method: Some(self.method.as_str().parse().map_err(Failure::Usage)?),
                device: self.device.parse().map_err(Failure::usage)?,
                kv: KvPrecision::Auto,
                pad_passes: None,
                draft_vocab: parse_draft_vocab(&self.draft_vocab).map_err(Failure::Usage)?,
                draft_layer_ids: LayerIds::Auto,
                draft_embeds: DraftEmbeds::default(),
                draft_positions: PositionsOf::default(),
                dtype: self.dtype.parse().map_err(Failure::usage)?,
                keep_quantized: false,
            },
        };
        flags.check()?;
        Ok(flags)
    }

    /// Returns how the task is read. Images are not checked: a damaged image is a failure of its
    /// prompt.
    pub(super) fn read_options(&self) -> ReadOptions {
        ReadOptions {
            max_bad_rows: self.max_bad_rows,
            image_check: ImageCheck::Never,
            shortage: self.shortage.shortage(),
            ..ReadOptions::default()
        }
    }

    /// Returns the trees to measure, with the directories of their cells; the first is that of the
    /// tree flags and `--out`.
    ///
    /// # Errors
    /// Usage if trees are given to a method without a draft tree, or twice.
    pub(super) fn tree_cells(&self) -> Result<Vec<TreeCell>, Failure> {
        let mut cells = vec![TreeCell {
            tree: self.tree()?,
            out: self.out.clone(),
        }];
        if !self.also.is_empty() && !self.method.has_network() {
            let message = format!("--also names a draft tree; {} has none", self.method);
            return Err(Failure::Usage(message));
        }
        for OtherTree { tree, out } in &self.also {
            if cells.iter().any(|cell| cell.tree == Some(*tree)) {
                return Err(Failure::Usage(format!("--also: {tree} is given twice")));
            }
            if cells.iter().any(|cell| cell.out == *out) {
                let out = out.display();
                return Err(Failure::Usage(format!("--also: {out} is given twice")));
            }
            cells.push(TreeCell {
                tree: Some(*tree),
                out: out.clone(),
            });
        }
        Ok(cells)
    }

    /// Returns the tree settings of a method with a draft.
    ///
    /// # Errors
    /// Usage if tree flags are given to a method without a draft tree.
    fn tree(&self) -> Result<Option<TreeSettings>, Failure> {
        if self.method.has_network() {
            let total_token = match (self.total_token, self.device.as_str()) {
                (Some(given), _) => given,
                (None, "flex") => TotalToken::Auto,
                (None, _) => tree::DEVICE_TOTAL_TOKEN.parse().map_err(Failure::usage)?,
            };
            let depth = match total_token {
                TotalToken::Auto => DEFAULT_AUTO_DEPTH,
                TotalToken::Nodes(_) => DEFAULT_DEPTH,
            };
            return Ok(Some(TreeSettings {
                depth: self.depth.unwrap_or(depth),
                top_k: self.top_k.unwrap_or(DEFAULT_TOP_K),
                total_token,
            }));
        }
        let given = [
            ("--depth", self.depth.is_some()),
            ("--top-k", self.top_k.is_some()),
            ("--total-token", self.total_token.is_some()),
        ];
        match given.iter().find(|(_, given)| *given) {
            None => Ok(None),
            Some((flag, _)) => {
                let message = format!("{flag} sets the draft tree; {} has none", self.method);
                Err(Failure::Usage(message))
            }
        }
    }

    /// Returns the flags with which `generate` would use a tree. Methods without a draft tree are
    /// sized by cost.
    ///
    /// # Errors
    /// Usage if a value is out of range.
    pub(super) fn tree_flags(&self, tree: Option<TreeSettings>) -> Result<TreeFlags, Failure> {
        let total_token = match tree.map_or(TotalToken::Auto, |tree| tree.total_token) {
            TotalToken::Auto => tree::TotalToken::Auto,
            TotalToken::Nodes(nodes) => tree::TotalToken::Fixed(nodes as usize),
        };
        let flags = TreeFlags {
            depth: tree.map(|tree| tree.depth as usize),
            top_k: tree.map_or(DEFAULT_TOP_K, |tree| tree.top_k) as usize,
            total_token,
            // The default of `generate`; records do not distinguish other values.
            max_loss: AutoTree::DEFAULT_MAX_LOSS,
            calibration: self.calibration.clone(),
        };
        flags.check()?;
        Ok(flags)
    }

    /// Returns the settings of the cell of a tree, for a number of samples and of tokens.
    pub(super) fn settings(
        &self,
        tree: Option<TreeSettings>,
        (prompts, max_new_tokens): (u64, u32),
    ) -> CellSettings {
        CellSettings {
            target: self.target.clone(),
            draft: self.draft.clone(),
            method: self.method,
            dtype: self.dtype.clone(),
            device: self.device.clone(),
            task: self.task.clone(),
            prompts,
            temperature: self.temperature,
            seed: self.seed,
            tree,
            draft_vocab: Some(self.draft_vocab.clone())
                .filter(|vocab| self.method.has_network() && vocab != "all"),
            max_new_tokens,
        }
    }
}
