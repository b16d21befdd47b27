//! Selection and order of the rows that become samples.

use std::collections::HashMap;

use super::bad_rows::BadRows;
use super::definition::{Filter, RepeatedIds, TaskDefinition};
use super::prompt::RowView;
use super::read_options::{ReadOptions, Shortage};
use crate::error::{DataError, Result};
use crate::rows::{Record, Table};

/// A selected row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chosen {
    /// Row of the table, from 0.
    pub(super) row: usize,
    /// Unique within the task.
    pub(super) id: String,
}

/// A row that passed the filters.
struct Candidate {
    chosen: Chosen,
    key: Option<String>,
}

/// Reads all rows once, and selects samples; keeps only ids in memory.
pub(super) fn choose(
    task: &TaskDefinition,
    table: &mut dyn Table,
    options: &ReadOptions,
    bad_rows: &mut BadRows,
) -> Result<Vec<Chosen>> {
    let mut candidates = Vec::new();
    for row in 0..table.n_rows() {
        let candidate = table
            .record(row)
            .and_then(|record| candidate(task, row, &record));
        match candidate {
            Ok(candidate) => candidates.extend(candidate),
            Err(error) => bad_rows.tolerate(error)?,
        }
    }
    let mut rows = last_of_each_key(candidates);
    make_ids_unique(task, table, &mut rows)?;
    if let Some(take) = task.subset.take()
        && rows.len() < take
        && options.shortage == Shortage::Refuse
    {
        return Err(DataError::TooFewRows {
            task: task.name().to_owned(),
            found: rows.len(),
            expected: take,
        });
    }
    let places = task.subset.places(rows.len());
    Ok(places
        .into_iter()
        .map(|place| rows[place].clone())
        .collect())
}

/// Returns the candidate of a row; `None` if a filter drops it.
fn candidate(task: &TaskDefinition, row: usize, record: &Record) -> Result<Option<Candidate>> {
    for filter in &task.filters {
        let passes = match filter {
            Filter::Present { column } => record.has(column),
            Filter::StartsWith { column, prefix } => record.text(column)?.starts_with(prefix),
        };
        if !passes {
            return Ok(None);
        }
    }
    let view = RowView::new(task, record, None);
    let id = task.id.fill(|name| view.value(name))?;
    let key = task.unique_by.as_deref();
    let key = key.map(|column| record.text(column)).transpose()?;
    let chosen = Chosen { row, id };
    Ok(Some(Candidate { chosen, key }))
}

/// Keeps the last row of each key, at the position of the first, like a Python dictionary that is
/// filled row by row.
fn last_of_each_key(candidates: Vec<Candidate>) -> Vec<Chosen> {
    let mut rows: Vec<Chosen> = Vec::with_capacity(candidates.len());
    let mut places: HashMap<String, usize> = HashMap::new();
    for Candidate { chosen, key } in candidates {
        let place = key.map(|key| *places.entry(key).or_insert(rows.len()));
        match place.and_then(|place| rows.get_mut(place)) {
            Some(earlier) => *earlier = chosen,
            None => rows.push(chosen),
        }
    }
    rows
}

fn make_ids_unique(task: &TaskDefinition, table: &dyn Table, rows: &mut [Chosen]) -> Result<()> {
    /// First row with an id, and the number of rows with it.
    struct Seen {
        row: usize,
        count: usize,
    }
    let mut seen: HashMap<String, Seen> = HashMap::with_capacity(rows.len());
    for chosen in rows {
        let row = chosen.row;
        let entry = seen
            .entry(chosen.id.clone())
            .or_insert(Seen { row, count: 0 });
        entry.count += 1;
        if entry.count == 1 {
            continue;
        }
        match task.repeated_ids {
            RepeatedIds::Number => chosen.id = format!("{}#{}", chosen.id, entry.count),
            RepeatedIds::Refuse => {
                return Err(DataError::DuplicateId {
                    origin: table.origin(row),
                    id: chosen.id.clone(),
                    first: table.origin(entry.row),
                });
            }
        }
    }
    Ok(())
}
