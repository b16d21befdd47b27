//! Common setup of all measurements: checks flags and files, then loads the models.

use std::io::{self, Write as _};
use std::path::PathBuf;

use vispec_core::{GenerationConfig, Sampler, TreeShape};
use vispec_data::TaskDefinition;
use vispec_models::{Engine, Method};
use vispec_report::record::CellHeader;

use super::costs::recorded;
use super::flags::{EvaluateFlags, TreeCell};
use super::prompts::{Prompts, find_task};
use examples_answer::failure::Failure;
use examples_answer::run::Settings;
use examples_answer::tree::TreeFlags;

/// Cells that are ready to be measured. They differ only in their trees.
pub(super) struct Setup {
    pub(super) engine: Engine,
    pub(super) method: Method,
    pub(super) task: TaskDefinition,
    pub(super) prompts: Prompts,
    /// Settings of plain decoding.
    pub(super) plain: Settings,
    /// One cell for each tree; the first is that of `--out`.
    pub(super) cells: Vec<Cell>,
}

/// A cell, and the tree that it measures.
pub(super) struct Cell {
    /// Header of the cell's records.
    pub(super) header: CellHeader,
    /// Settings of the cell's method.
    pub(super) speculative: Settings,
    /// Directory of the records.
    pub(super) out: PathBuf,
}

impl Setup {
    /// Checks the flags and loads the models.
    ///
    /// # Errors
    /// Usage if flags are invalid; any error of task, models and files.
    pub(super) fn new(flags: &EvaluateFlags) -> Result<Self, Failure> {
        // Check flags and files before loading anything.
        let models = flags.models()?;
        let trees = flags.tree_cells()?.into_iter().map(|cell| {
            let tree = flags.tree_flags(cell.tree)?;
            Ok((cell, tree))
        });
        let trees = trees.collect::<Result<Vec<(TreeCell, TreeFlags)>, Failure>>()?;
        let sampler = Sampler::new(flags.temperature, None, None).map_err(Failure::usage)?;
        if flags.max_new_tokens == Some(0) {
            return Err(Failure::usage("--max-new-tokens is 0, expected at least 1"));
        }
        let task = find_task(&flags.task)?;
        let mut prompts = Prompts::open(&task, &flags.data, &flags.read_options(), flags.prompts)?;
        let survey = prompts.survey(flags.shard)?;

        say("loading")?;
        let pixels = task.pixel_limits();
        let engine = models.load()?.with_pixels(pixels.min, pixels.max)?;
        prompts.suit(engine.processor());
        let method = models.load.method.unwrap_or(Method::None);
        // Report errors that affect every prompt once, before the first.
        engine.drafter(method, TreeShape::default())?;
        // The costs do not depend on the tree.
        let costs = match trees.first() {
            Some((_, tree)) if method != Method::None => Some(tree.costs(&engine, method)?),
            _ => None,
        };
        for note in costs.iter().flat_map(|costs| &costs.notes) {
            say(note)?;
        }

        let max_new_tokens = flags
            .max_new_tokens
            .map_or(task.max_new_tokens(), |n| n as usize);
        let counts = (
            prompts.n_samples(),
            u32::try_from(max_new_tokens).unwrap_or(u32::MAX),
        );
        let table = costs.map(|costs| costs.table);
        let stop_tokens = engine.processor().eos_token_ids().iter().copied();
        let config = GenerationConfig {
            max_new_tokens,
            stop_tokens: stop_tokens.collect(),
        };
        let settings = |tree| Settings {
            grammar: None,
            config: config.clone(),
            sampler,
            seed: flags.seed,
            tree,
        };
        let cells = trees.into_iter().map(|(cell, tree)| {
            let mut header =
                CellHeader::new(flags.settings(cell.tree, counts), env!("CARGO_PKG_VERSION"));
            header.shard = flags.shard;
            header.planned_prompts = survey.n_prompts;
            header.task_sha256 = Some(survey.sha256.clone());
            header.num_q = queries(&engine, method);
            header.costs = table.as_ref().map(recorded);
            Ok(Cell {
                header,
                speculative: settings(tree.size(method, table.clone())?),
                out: cell.out,
            })
        });
        Ok(Self {
            plain: settings(TreeShape::default().into()),
            cells: cells.collect::<Result<_, Failure>>()?,
            engine,
            method,
            task,
            prompts,
        })
    }
}

/// Returns the number of learned queries of the draft, if the cell's method uses it.
fn queries(engine: &Engine, method: Method) -> Option<u32> {
    let draft = engine.draft_of(method)?;
    draft.n_queries().and_then(|n| u32::try_from(n).ok())
}

/// Prints a progress line. If the reader is gone, as after a killed sweep, the error ends this
/// process too.
pub(super) fn say(line: &str) -> Result<(), Failure> {
    let written = writeln!(io::stderr(), "{line}");
    // Not passed on unchanged, since a closed pipe would count as success.
    written.map_err(|error| anyhow::anyhow!("progress cannot be shown: {error}").into())
}
