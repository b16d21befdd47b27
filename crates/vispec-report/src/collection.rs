//! All cells below a directory, and the series they make.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::error::{ReportError, Result};
use crate::record::{
    CellHeader, CellProgress, CellStatus, CostTable, HEADER_FILE, Machine, Method,
    RUN_FAILURE_FILE, RecordLine, RecordReader, RunFailure, TreeSettings,
};
use crate::statistics::{Estimates, Measurements};

/// A cell that was read.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Its directory.
    pub dir: PathBuf,
    /// Its header.
    pub header: CellHeader,
    /// How far it is.
    pub status: CellStatus,
    /// Prompts that failed, and why.
    pub failed: BTreeMap<String, String>,
    /// How its last process failed, if it did.
    pub run_failure: Option<RunFailure>,
    /// Its records.
    pub measurements: Measurements,
}

/// A directory that looks like a cell and could not be read.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The directory.
    pub dir: PathBuf,
    /// Why it could not be read, causes included.
    pub message: String,
}

/// Everything below a directory.
#[derive(Debug, Clone)]
pub struct Collection {
    /// Cells that were read, ordered by directory.
    pub cells: Vec<Cell>,
    /// Cells that were not.
    pub problems: Vec<Problem>,
}

impl Collection {
    /// Reads all cells below `dir`. What cannot be read is listed, not fatal.
    ///
    /// # Errors
    /// [`ReportError::NoCells`] if not one cell can be read, or any error of listing directories.
    pub fn read(dir: &Path) -> Result<Self> {
        let read: Vec<_> = cell_dirs(dir)?
            .into_par_iter()
            .map(|dir| Cell::read(&dir).map_err(|error| Problem::new(dir, &error)))
            .collect();
        let mut collection = Self {
            cells: Vec::new(),
            problems: Vec::new(),
        };
        let mut seen = BTreeSet::new();
        for cell in read {
            match cell {
                Err(problem) => collection.problems.push(problem),
                Ok(cell) => {
                    let header = &cell.header;
                    let key = (header.cell_id.clone(), header.shard, header.machine.clone());
                    if seen.insert(key) {
                        collection.cells.push(cell);
                    } else {
                        collection.problems.push(Problem {
                            dir: cell.dir,
                            message: "another directory holds the same cell of the same machine"
                                .to_owned(),
                        });
                    }
                }
            }
        }
        if collection.cells.is_empty() {
            return Err(ReportError::NoCells {
                path: dir.to_owned(),
                problems: collection.problems.len(),
            });
        }
        Ok(collection)
    }

    /// Cells that have the same settings but for task, seed and number of prompts, and the same
    /// machine and program, as one series each.
    #[must_use]
    pub fn series(&self) -> Vec<Series> {
        let mut groups: BTreeMap<SeriesKey, Vec<&Cell>> = BTreeMap::new();
        for cell in &self.cells {
            if !cell.measurements.samples.is_empty() {
                let key = SeriesKey::of(&cell.header);
                groups.entry(key).or_default().push(cell);
            }
        }
        let keys: Vec<SeriesKey> = groups.keys().cloned().collect();
        groups
            .into_iter()
            .map(|(key, cells)| Series::new(key.label_among(&keys), key, &cells))
            .collect()
    }

    /// The machines of all cells, each once.
    #[must_use]
    pub fn machines(&self) -> BTreeSet<&Machine> {
        self.cells.iter().map(|cell| &cell.header.machine).collect()
    }
}

impl Cell {
    /// Reads a cell.
    ///
    /// # Errors
    /// A header or records that are absent, spoilt or of another version, or prompts that occur
    /// more than once.
    pub fn read(dir: &Path) -> Result<Self> {
        let run_failure = if dir.join(RUN_FAILURE_FILE).exists() {
            Some(RunFailure::read(dir)?)
        } else {
            None
        };
        let header = CellHeader::read(dir)?;
        let mut reader = RecordReader::open(dir)?;
        let mut progress = CellProgress::default();
        let mut measurements = Measurements::default();
        for line in reader.by_ref() {
            let line = line?;
            progress.add(&line);
            if let RecordLine::Record(record) = &line {
                measurements.add(record);
            }
        }
        progress.expect_unique(reader.path())?;
        Ok(Self {
            dir: dir.to_owned(),
            status: progress.status(header.planned_prompts),
            failed: progress.failed().clone(),
            run_failure,
            header,
            measurements,
        })
    }
}

impl Problem {
    fn new(dir: PathBuf, error: &ReportError) -> Self {
        let mut message = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        if let Ok(failure) = RunFailure::read(&dir) {
            let tail = failure.stderr_tail.join(" | ");
            message = format!("{message}; its process failed: {tail}");
        }
        Self { dir, message }
    }
}

/// Directories with a header or a failure, sorted.
fn cell_dirs(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        let entries = fs::read_dir(&dir).map_err(ReportError::io(&dir, "could not be listed"))?;
        let mut is_cell = false;
        for entry in entries {
            let entry = entry.map_err(ReportError::io(&dir, "could not be listed"))?;
            let name = entry.file_name();
            is_cell |= name == HEADER_FILE || name == RUN_FAILURE_FILE;
            // Links are not followed: they could lead in circles.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
        }
        if is_cell {
            found.push(dir);
        }
    }
    found.sort();
    Ok(found)
}

/// What the cells of a series have in common.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeriesKey {
    /// Checkpoint of the target.
    pub target: String,
    /// Temperature in thousandths, so that keys have an order.
    pub milli_temperature: u32,
    /// How tokens are drafted.
    pub method: Method,
    /// Checkpoint of the draft.
    pub draft: Option<String>,
    /// Shape of the trees.
    pub tree: Option<TreeSettings>,
    /// Element type.
    pub dtype: String,
    /// Device.
    pub device: String,
    /// Most tokens of an answer.
    pub max_new_tokens: u32,
    /// Machine.
    pub machine: Machine,
    /// Version of the program.
    pub program_version: String,
}

impl SeriesKey {
    fn of(header: &CellHeader) -> Self {
        let settings = &header.settings;
        Self {
            target: settings.target.clone(),
            milli_temperature: (settings.temperature * 1e3).round() as u32,
            method: settings.method,
            draft: settings.draft.clone(),
            tree: settings.tree,
            dtype: settings.dtype.clone(),
            device: settings.device.clone(),
            max_new_tokens: settings.max_new_tokens,
            machine: Machine {
                // It differs by a little between boots of one machine.
                memory_bytes: 0,
                ..header.machine.clone()
            },
            program_version: header.program_version.clone(),
        }
    }

    /// Name of the target: the last part of its path or hub id.
    #[must_use]
    pub fn target_name(&self) -> &str {
        last_component(&self.target)
    }

    /// Temperature as it is written.
    #[must_use]
    pub fn temperature(&self) -> f64 {
        f64::from(self.milli_temperature) / 1e3
    }

    /// The method, and whatever else tells this series from others of its target, temperature and
    /// method.
    fn label_among(&self, all: &[Self]) -> String {
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
        add_if_varied(&|key| last_component(key.draft.as_deref().unwrap_or_default()).to_owned());
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

/// One task of a series.
#[derive(Debug, Clone)]
pub struct TaskResult {
    /// Records of the task, all seeds together.
    pub measurements: Measurements,
    /// Figures of these records.
    pub estimates: Estimates,
}

/// Cells that differ in task and seed only.
#[derive(Debug, Clone)]
pub struct Series {
    /// A name that is unique among the series of the same target and temperature.
    pub label: String,
    /// What its cells have in common.
    pub key: SeriesKey,
    /// Results by name of the task.
    pub tasks: BTreeMap<String, TaskResult>,
    /// Records of all tasks together.
    pub pooled: Measurements,
    /// What passes cost, from the first cell that says so.
    pub costs: Option<CostTable>,
}

impl Series {
    fn new(label: String, key: SeriesKey, cells: &[&Cell]) -> Self {
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
                let estimates = Estimates::of(&measurements.samples);
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

    /// The mean over tasks of a figure: each task counts the same, as in the paper's tables.
    #[must_use]
    pub fn task_mean(&self, figure: impl Fn(&Estimates) -> f64) -> f64 {
        let sum: f64 = self
            .tasks
            .values()
            .map(|task| figure(&task.estimates))
            .sum();
        sum / self.tasks.len() as f64
    }
}
