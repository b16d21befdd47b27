//! Merging the shards of a cell.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::{CellHeader, HEADER_FILE, RecordLine, RecordReader, RecordWriter, Shard};
use crate::error::{ReportError, Result};

/// Writes the records of all shards into the new directory `into`, as one cell.
///
/// The shards must be all shards of one cell, measured with the same program on machines of the
/// same kind. If shards are incomplete, so is the merged cell. Failures are copied, unless another
/// line answers their prompt.
///
/// # Errors
/// Returns [`ReportError::HeaderMismatch`] for shards of different cells, [`ReportError::Shards`]
/// for missing or repeated shards or if `into` already holds a cell, and
/// [`ReportError::DuplicatePrompts`] for prompts that are in several shards.
pub fn merge(shards: &[PathBuf], into: &Path) -> Result<CellHeader> {
    let headers = shards
        .iter()
        .map(|dir| CellHeader::read(dir))
        .collect::<Result<Vec<_>>>()?;
    let Some(first) = headers.first() else {
        return Err(ReportError::Shards {
            cell_id: String::new(),
            problem: "none is given".to_owned(),
        });
    };
    let fault = |problem: String| ReportError::Shards {
        cell_id: first.cell_id.clone(),
        problem,
    };
    if into.join(HEADER_FILE).exists() {
        return Err(fault(format!("{} already holds a cell", into.display())));
    }
    for (dir, header) in shards.iter().zip(&headers) {
        header.expect_same_cell(first, &dir.join(HEADER_FILE))?;
    }
    let found: Vec<u32> = headers.iter().map(|header| header.shard.index).collect();
    let distinct: BTreeSet<u32> = found.iter().copied().collect();
    if distinct.len() != found.len() || !distinct.iter().copied().eq(0..first.shard.count) {
        return Err(fault(format!(
            "found the indices {found:?}, expected each below {} once",
            first.shard.count
        )));
    }
    let mut merged = first.clone();
    merged.shard = Shard::WHOLE;
    merged.planned_prompts = headers.iter().map(|header| header.planned_prompts).sum();
    for header in &headers {
        merged.started_at = merged.started_at.min(header.started_at);
        merged.costs = merged.costs.or_else(|| header.costs.clone());
    }
    copy_lines(shards, into, &merged)?;
    Ok(merged)
}

fn copy_lines(shards: &[PathBuf], into: &Path, header: &CellHeader) -> Result<()> {
    let mut opened = RecordWriter::open(into, header)?;
    for dir in shards {
        for line in RecordReader::open(dir)? {
            let line = line?;
            opened.progress.add(&line);
            opened.progress.expect_unique(dir)?;
            match line {
                RecordLine::Record(record) => opened.writer.append(&record)?,
                RecordLine::Failure(failure) => opened.writer.append_failure(failure)?,
            }
        }
    }
    opened.writer.sync()
}
