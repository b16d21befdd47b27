//! Measured cells by draft, task and temperature.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use vispec_report::collection::{Cell, Collection};
use vispec_report::record::{
    CellStatus, Machine, RecordLine, RecordReader, TotalToken, TreeSettings,
};
use vispec_report::statistics::{Acceptance, Estimates, Measurements, Sample};

use crate::reproduce::experiment::{Evaluation, Experiment};

/// Results of one draft on one task at one temperature, over all its trainings.
pub(super) struct Outcome<'a> {
    pub(super) draft: &'a str,
    /// One sample per prompt: the sums over trainings.
    pub(super) samples: Vec<Sample>,
    /// Estimates from these samples.
    pub(super) estimates: Estimates,
    /// Acceptance by depth, over all prompts and trainings.
    pub(super) acceptance: Acceptance,
    /// tau of each training.
    pub(super) tau_by_seed: Vec<f64>,
    /// Share of answers that equal those of plain decoding.
    pub(super) exact_share: f64,
}

/// A combination of task, temperature and tree settings.
pub(super) struct Condition<'a> {
    /// Name of the task.
    pub(super) task: String,
    pub(super) temperature: f32,
    pub(super) tree: TreeSettings,
    /// Mean number of image tokens over prompts.
    pub(super) image_tokens: f64,
    /// Outcomes in the order of the experiment's drafts.
    pub(super) outcomes: Vec<Outcome<'a>>,
}

/// All results.
pub(super) struct Results<'a> {
    pub(super) conditions: Vec<Condition<'a>>,
    pub(super) machine: &'a Machine,
    /// When the first cell was started.
    pub(super) started: jiff::Timestamp,
}

impl<'a> Results<'a> {
    /// Sorts the cells. All must exist and be complete. The machine of the first one is reported
    /// for all.
    pub(super) fn of(
        experiment: &'a Experiment,
        seeds: u64,
        collection: &'a Collection,
    ) -> Result<Self> {
        if let Some(problem) = collection.problems.first() {
            bail!("{}: {}", problem.dir.display(), problem.message);
        }
        let Some(first) = collection.cells.first() else {
            bail!("no cells");
        };
        let machine = &first.header.machine;
        let mut conditions = Vec::new();
        for (tree, temperature, task) in conditions_of(&experiment.evaluation) {
            let mut outcomes = Vec::new();
            for draft in &experiment.drafts {
                let names = (0..seeds).map(|seed| draft.trained_name(seed));
                let cells = names.map(|name| find(collection, (&name, task, temperature, tree)));
                let cells: Vec<&Cell> = cells.collect::<Result<_>>()?;
                outcomes.push(Outcome::of(&draft.name, &cells)?);
            }
            conditions.push(Condition {
                task: stem(task),
                temperature,
                tree,
                image_tokens: image_tokens(&outcomes),
                outcomes,
            });
        }
        let started = collection.cells.iter().map(|cell| cell.header.started_at);
        Ok(Self {
            conditions,
            machine,
            started: started.min().unwrap_or(first.header.started_at),
        })
    }
}

impl<'a> Outcome<'a> {
    fn of(draft: &'a str, cells: &[&Cell]) -> Result<Self> {
        let mut together = Measurements::default();
        let mut samples: Vec<Sample> = Vec::new();
        for cell in cells {
            if cell.status != CellStatus::Complete {
                bail!("{}: {:?}", cell.dir.display(), cell.status);
            }
            together.merge(&cell.measurements);
            let cell_samples = read_samples(cell)?;
            samples = if samples.is_empty() {
                cell_samples
            } else {
                let pairs = samples.iter().zip(&cell_samples);
                pairs.map(|(a, b)| sum(a, b)).collect()
            };
        }
        let tau = |cell: &&Cell| Estimates::of(&cell.measurements.blocks).tau.value;
        Ok(Self {
            draft,
            estimates: Estimates::of(&samples.iter().collect()),
            samples,
            acceptance: Acceptance::from_histogram(&together.accepted_histogram),
            tau_by_seed: cells.iter().map(tau).collect(),
            exact_share: together.exact_share().unwrap_or(f64::NAN),
        })
    }
}

/// Reads the records of a cell in the order of its prompts, in which they are answered.
fn read_samples(cell: &Cell) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    for line in RecordReader::open(&cell.dir)? {
        if let RecordLine::Record(record) = line? {
            samples.push(Sample::of(&record));
        }
    }
    Ok(samples)
}

/// Sums two records of a prompt, so that the bootstrap resamples prompts rather than records.
fn sum(a: &Sample, b: &Sample) -> Sample {
    Sample {
        image_tokens: a.image_tokens,
        cycles: a.cycles + b.cycles,
        accepted: a.accepted + b.accepted,
        plain_tokens: a.plain_tokens + b.plain_tokens,
        speculative_tokens: a.speculative_tokens + b.speculative_tokens,
        plain_decode_ms: a.plain_decode_ms + b.plain_decode_ms,
        plain_total_ms: a.plain_total_ms + b.plain_total_ms,
        speculative_decode_ms: a.speculative_decode_ms + b.speculative_decode_ms,
        speculative_total_ms: a.speculative_total_ms + b.speculative_total_ms,
    }
}

impl Condition<'_> {
    /// Returns a title for headings.
    pub(super) fn title(&self) -> String {
        format!(
            "{}, {:.0} image tokens",
            self.task.replace('_', " "),
            self.image_tokens
        )
    }

    /// Returns whether trees have a fixed size. The depth of others varies, so that their
    /// acceptance by depth says little about the draft.
    pub(super) fn has_fixed_trees(&self) -> bool {
        matches!(self.tree.total_token, TotalToken::Nodes(_))
    }

    /// Returns a short title.
    pub(super) fn short_title(&self) -> String {
        let name = self.task.replace('_', " ");
        format!("{name} ({:.0})", self.image_tokens)
    }

    /// Returns the outcome of a draft.
    pub(super) fn outcome(&self, draft: &str) -> Option<&Outcome<'_>> {
        self.outcomes.iter().find(|outcome| outcome.draft == draft)
    }
}

/// Returns every tree, temperature and task in the order of the tables.
fn conditions_of(evaluation: &Evaluation) -> impl Iterator<Item = (TreeSettings, f32, &PathBuf)> {
    evaluation.trees.iter().flat_map(move |&tree| {
        evaluation
            .temperatures
            .iter()
            .flat_map(move |&temperature| {
                let tasks = evaluation.all_tasks();
                tasks.map(move |task| (tree, temperature, task))
            })
    })
}

fn find<'a>(
    collection: &'a Collection,
    (draft, task, temperature, tree): (&str, &Path, f32, TreeSettings),
) -> Result<&'a Cell> {
    let is_it = |cell: &&Cell| {
        let settings = &cell.header.settings;
        settings.draft_name() == Some(draft)
            && Path::new(&settings.task) == task
            && settings.temperature.to_bits() == temperature.to_bits()
            && settings.tree == Some(tree)
    };
    match collection.cells.iter().find(is_it) {
        Some(cell) => Ok(cell),
        None => bail!(
            "no cell of {draft}, {}, {temperature}, {tree}",
            task.display()
        ),
    }
}

fn image_tokens(outcomes: &[Outcome<'_>]) -> f64 {
    let samples = outcomes.first().map_or(&[][..], |outcome| &outcome.samples);
    let sum: f64 = samples.iter().map(|s| f64::from(s.image_tokens)).sum();
    sum / samples.len() as f64
}

fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}
