//! Series: cells that are evaluated together.

use std::collections::BTreeMap;

use crate::cell::Cell;
use crate::record::{CellHeader, CostTable, Machine, Method, TreeSettings};
use crate::statistics::{Estimates, Measurements};

/// Properties that the cells of a series have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeriesKey {
    /// Checkpoint of the target.
    pub target: String,
    /// Temperature in thousandths, so that keys are ordered.
    pub milli_temperature: u32,
    /// Drafting method.
    pub method: Method,
    /// Checkpoint of the draft.
    pub draft: Option<String>,
    /// Number of learned queries of the draft, if any.
    pub num_q: Option<u32>,
    /// Tree settings.
    pub tree: Option<TreeSettings>,
    /// Tokens among which the draft chooses; `None` for all tokens.
    pub draft_vocab: Option<String>,
    /// Element type.
    pub dtype: String,
    /// Device.
    pub device: String,
    /// Maximum number of tokens of an answer.
    pub max_new_tokens: u32,
    /// The machine, with `memory_bytes` set to 0.
    pub machine: Machine,
    /// Version of the program.
    pub program_version: String,
}

impl SeriesKey {
    pub(crate) fn of(header: &CellHeader) -> Self {
        let settings = &header.settings;
        Self {
            target: settings.target.clone(),
            milli_temperature: (settings.temperature * 1e3).round() as u32,
            method: settings.method,
            draft: settings.draft.clone(),
            num_q: header.num_q,
            tree: settings.tree,
            draft_vocab: settings.draft_vocab.clone(),
            dtype: settings.dtype.clone(),
            device: settings.device.clone(),
            max_new_tokens: settings.max_new_tokens,
            machine: Machine {
                // Memory size varies slightly between boots of the same machine.
                memory_bytes: 0,
                ..header.machine.clone()
            },
            program_version: header.program_version.clone(),
        }
    }

    /// Returns the name of the target: the last component of its path or hub id.
    pub(crate) fn target_name(&self) -> &str {
        last_component(&self.target)
    }

    /// Returns the temperature as a number.
    pub(crate) fn temperature(&self) -> f64 {
        f64::from(self.milli_temperature) / 1e3
    }

    /// Returns the method, and all properties that distinguish this series from others with the
    /// same target, temperature and method.
    pub(crate) fn label_among(&self, all: &[Self]) -> String {
        let similar: Vec<&Self> = all
            .iter()
            .filter(|other| other.target == self.target && other.method == self.method)
            .collect();
        let mut label = self.method.title().to_owned();
        let mut add_if_varied = |text: &dyn Fn(&Self) -> String| {
            let own = text(self);
            if !own.is_empty() && similar.iter().any(|other| text(other) != own) {
                label.push(' ');
                label.push_str(&own);
            }
        };
        add_if_varied(&|key| key.tree.map_or_else(String::new, |tree| tree.to_string()));
        add_if_varied(&|key| key.num_q.map_or_else(String::new, |n| format!("num_q {n}")));
        // Drafts with different numbers of queries differ in name, too; one of the two is enough.
        if similar
            .iter()
            .any(|key| key.num_q == self.num_q && key.draft != self.draft)
        {
            add_if_varied(&|key| {
                last_component(key.draft.as_deref().unwrap_or_default()).to_owned()
            });
        }
        add_if_varied(&|key| key.dtype.clone());
        add_if_varied(&|key| key.device.clone());
        add_if_varied(&|key| format!("up to {} tokens", key.max_new_tokens));
        add_if_varied(&|key| format!("on {} x {}", key.machine.cores, key.machine.cpu_model));
        add_if_varied(&|key| format!("version {}", key.program_version));
        label
    }
}

fn last_component(path: &str) -> &str {
    path.trim_end_matches('/')
        .rsplit('/')
        .next()
        .unwrap_or(path)
}

/// Results of one task of a series.
#[derive(Debug, Clone)]
pub struct TaskResult {
    /// Records of the task, over all seeds.
    pub measurements: Measurements,
    /// Figures of these records.
    pub estimates: Estimates,
}

/// Cells that differ only in task, seed and number of prompts.
#[derive(Debug, Clone)]
pub struct Series {
    /// A name that is unique among the series of the same target and temperature.
    pub label: String,
    /// Common properties of the cells.
    pub key: SeriesKey,
    /// Results by task name.
    pub tasks: BTreeMap<String, TaskResult>,
    /// Records of all tasks.
    pub pooled: Measurements,
    /// Costs of passes, from the first cell that has them.
    pub costs: Option<CostTable>,
}

impl Series {
    pub(crate) fn new(label: String, key: SeriesKey, cells: &[&Cell]) -> Self {
        let mut by_task: BTreeMap<String, Measurements> = BTreeMap::new();
        let mut pooled = Measurements::default();
        for cell in cells {
            let task = cell.header.settings.task.clone();
            by_task.entry(task).or_default().merge(&cell.measurements);
            pooled.merge(&cell.measurements);
        }
        let tasks = by_task
            .into_iter()
            .map(|(task, measurements)| {
                let estimates = Estimates::of(&measurements.blocks);
                let result = TaskResult {
                    measurements,
                    estimates,
                };
                (task, result)
            })
            .collect();
        Self {
            label,
            key,
            tasks,
            pooled,
            costs: cells.iter().find_map(|cell| cell.header.costs.clone()),
        }
    }

    /// Returns the mean of a figure over tasks. Each task has the same weight, as in the paper's
    /// tables.
    pub(crate) fn task_mean(&self, figure: impl Fn(&Estimates) -> f64) -> f64 {
        let sum: f64 = self
            .tasks
            .values()
            .map(|task| figure(&task.estimates))
            .sum();
        sum / self.tasks.len() as f64
    }
}
