//! All cells below a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;

pub use crate::cell::Cell;
use crate::error::{ReportError, Result};
use crate::record::{HEADER_FILE, Machine, RECORDS_FILE, RUN_FAILURE_FILE, RunFailure, Shard};
use crate::series::{Series, SeriesKey};

/// A directory that looks like a cell but could not be read.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Directory of the cell.
    pub dir: PathBuf,
    /// The error, including its causes.
    pub message: String,
}

/// A cell for which only some of the shards exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingShards {
    /// [`CellSettings::directory_name`](crate::record::CellSettings::directory_name) of the cell.
    pub cell: String,
    /// The missing shards.
    pub missing: Vec<Shard>,
}

/// All cells below a directory.
#[derive(Debug, Clone)]
pub struct Collection {
    /// Cells that were read, ordered by directory.
    pub cells: Vec<Cell>,
    /// Cells that could not be read.
    pub problems: Vec<Problem>,
}

impl Collection {
    /// Reads all cells below `dir`. Unreadable cells are listed in `problems` and are not fatal.
    ///
    /// # Errors
    /// Returns [`ReportError::NoCells`] if no cell can be read, or any error from listing
    /// directories.
    pub fn read(dir: &Path) -> Result<Self> {
        let read: Vec<_> = cell_dirs(dir)?
            .into_par_iter()
            .map(|dir| Cell::read(&dir).map_err(|error| Problem::new(dir, &error)))
            .collect();
        let mut collection = Self {
            cells: Vec::new(),
            problems: Vec::new(),
        };
        let mut seen: BTreeMap<(String, Machine), Vec<Shard>> = BTreeMap::new();
        for cell in read {
            match cell {
                Err(problem) => collection.problems.push(problem),
                Ok(cell) => {
                    let header = &cell.header;
                    let key = (header.cell_id.clone(), header.machine.clone());
                    let shards = seen.entry(key).or_default();
                    if let Some(other) = shards.iter().find(|shard| shard.overlaps(header.shard)) {
                        let message = overlap(*other, header.shard);
                        let dir = cell.dir;
                        collection.problems.push(Problem { dir, message });
                    } else {
                        shards.push(header.shard);
                        collection.cells.push(cell);
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

    /// Groups the cells into series. Cells of a series differ only in task, seed and number of
    /// prompts, and have the same machine and program version.
    #[must_use]
    pub fn series(&self) -> Vec<Series> {
        let mut groups: BTreeMap<SeriesKey, Vec<&Cell>> = BTreeMap::new();
        for cell in &self.cells {
            if cell.measurements.records() > 0 {
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

    /// Returns the cells with missing shards. A shard counts as present whichever machine measured
    /// it.
    pub(crate) fn missing_shards(&self) -> Vec<MissingShards> {
        let mut found: BTreeMap<(String, u32), BTreeSet<u32>> = BTreeMap::new();
        for cell in &self.cells {
            let Shard { index, count } = cell.header.shard;
            let name = cell.header.settings.directory_name();
            found.entry((name, count)).or_default().insert(index);
        }
        found
            .into_iter()
            .map(|((cell, count), found)| MissingShards {
                cell,
                missing: (0..count)
                    .filter(|index| !found.contains(index))
                    .map(|index| Shard { index, count })
                    .collect(),
            })
            .filter(|shards| !shards.missing.is_empty())
            .collect()
    }

    /// Returns the distinct machines of all cells.
    pub(crate) fn machines(&self) -> BTreeSet<&Machine> {
        self.cells.iter().map(|cell| &cell.header.machine).collect()
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

/// Returns why a cell is not counted in addition to another of the same settings and machine.
fn overlap(other: Shard, shard: Shard) -> String {
    if other == shard {
        return "another directory holds the same cell of the same machine".to_owned();
    }
    format!("shard {shard} has prompts of shard {other}, which another directory holds")
}

/// Returns all directories with a header, records or a failure, sorted.
fn cell_dirs(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        let entries = fs::read_dir(&dir).map_err(ReportError::io(&dir, "could not be listed"))?;
        let mut is_cell = false;
        for entry in entries {
            let entry = entry.map_err(ReportError::io(&dir, "could not be listed"))?;
            let name = entry.file_name();
            is_cell |= [HEADER_FILE, RECORDS_FILE, RUN_FAILURE_FILE]
                .iter()
                .any(|file| name == *file);
            // Links are not followed: they could form cycles.
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
