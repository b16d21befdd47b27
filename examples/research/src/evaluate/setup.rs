//! Common setup of all measurements: checks flags and files, then loads the models.

use std::io::{self, Write as _};

use vispec_core::{GenerationConfig, Sampler, TreeShape};
use vispec_data::TaskDefinition;
use vispec_models::{Engine, Method};
use vispec_report::record::CellHeader;

use super::costs::recorded;
use super::flags::EvaluateFlags;
use super::prompts::{Prompts, find_task};
use examples_answer::failure::Failure;
use examples_answer::run::Settings;

/// A cell that is ready to be measured.
pub(super) struct Setup {
    pub(super) engine: Engine,
    pub(super) method: Method,
    pub(super) task: TaskDefinition,
    pub(super) prompts: Prompts,
    /// Header of the cell's records.
    pub(super) header: CellHeader,
    /// Settings of plain decoding, and of the cell's method.
    pub(super) plain: Settings,
    pub(super) speculative: Settings,
}

impl Setup {
    /// Checks the flags and loads the models.
    ///
    /// # Errors
    /// Usage if flags are invalid; any error of task, models and files.
    pub(super) fn new(flags: &EvaluateFlags) -> Result<Self, Failure> {
        // Check flags and files before loading anything.
        let models = flags.models()?;
        let tree = flags.tree_flags()?;
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
        let costs = match method {
            Method::None => None,
            _ => Some(tree.costs(&engine, method)?),
        };
        for note in costs.iter().flat_map(|costs| &costs.notes) {
            say(note)?;
        }

        let max_new_tokens = flags
            .max_new_tokens
            .map_or(task.max_new_tokens(), |n| n as usize);
        let settings = flags.settings(
            prompts.n_samples(),
            u32::try_from(max_new_tokens).unwrap_or(u32::MAX),
        )?;
        let seed = settings.seed;
        let mut header = CellHeader::new(settings, env!("CARGO_PKG_VERSION"));
        header.shard = flags.shard;
        header.planned_prompts = survey.n_prompts;
        header.task_sha256 = Some(survey.sha256);
        header.num_q = queries(&engine, method);
        header.costs = costs.as_ref().map(|costs| recorded(&costs.table));

        let size = tree.size(method, costs.map(|costs| costs.table))?;
        let stop_tokens = engine.processor().eos_token_ids().iter().copied();
        let config = GenerationConfig {
            max_new_tokens,
            stop_tokens: stop_tokens.collect(),
        };
        let settings = |tree| Settings {
            grammar: None,
            config: config.clone(),
            sampler,
            seed,
            tree,
        };
        Ok(Self {
            plain: settings(tree.size(Method::None, None)?),
            speculative: settings(size),
            engine,
            method,
            task,
            prompts,
            header,
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
