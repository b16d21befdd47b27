//! `cargo xtask sweep`: runs every cell of a grid. Cells that differ only in their trees share a
//! process and its plain answers.

mod file;
mod plan;
mod progress;

use std::fmt;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result, bail};
use clap::Args;
use vispec_report::record::{
    CellStatus, HEADER_FILE, RUN_FAILURE_FILE, RunFailure, is_being_written,
};

use plan::{Plan, PlannedCell};
use progress::{CellBar, SweepProgress};

use crate::launch::{Outcome, launch};
use crate::line_watcher::LOOK_EVERY;
use crate::programs;

#[derive(Args)]
pub(crate) struct Flags {
    /// File that describes the sweep; examples/configs/bench/demo.toml documents its format
    pub(crate) file: PathBuf,
    /// Directory for the cells [default: target/sweeps/NAME OF THE FILE]
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    /// Program that runs a cell [default: built once with cargo, in release mode]
    #[arg(long)]
    pub(crate) evaluate: Option<PathBuf>,
    /// Only list the cells and whether they are complete
    #[arg(long)]
    pub(crate) list: bool,
}

/// How a cell of a sweep ended.
enum CellEnd {
    WasComplete,
    Completed,
    Failed(String),
}

impl fmt::Display for CellEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::WasComplete => "skipped",
            Self::Completed => "complete",
            Self::Failed(_) => "FAILED",
        })
    }
}

/// Runs all cells that are not complete. A failed cell does not stop the sweep, but makes it return
/// an error at the end.
pub(crate) fn run(flags: &Flags) -> Result<()> {
    let plan = Plan::read(&flags.file)?;
    let out = match &flags.out {
        Some(out) => out.clone(),
        None => default_out(flags),
    };
    if flags.list {
        return list(&plan, &out);
    }
    let evaluate = match &flags.evaluate {
        Some(path) => path.clone(),
        None => programs::build(&["evaluate"])?.path("evaluate"),
    };
    let progress = SweepProgress::new(&plan, &out);
    let mut ends = Vec::new();
    for group in plan.groups() {
        for (cell, end) in run_group(&plan, group, (&evaluate, &out), &progress)? {
            progress.ended(&format!("{end} {}", cell.settings.directory_name()));
            ends.push((cell, end));
        }
    }
    progress.finish();
    summarise(&ends, &out)
}

fn default_out(flags: &Flags) -> PathBuf {
    let name = flags.file.file_stem().unwrap_or_default();
    crate::root().join("target/sweeps").join(name)
}

/// Returns whether a directory holds every record of its cell. A directory that cannot be read is
/// an error, because it would fail again in every run.
fn is_complete(dir: &std::path::Path) -> Result<bool> {
    if !dir.join(HEADER_FILE).exists() {
        return Ok(false);
    }
    let status = CellStatus::of(dir).with_context(|| dir.display().to_string())?;
    Ok(status == CellStatus::Complete)
}

/// Runs the cells of a group that are not complete, in one process. Returns how each cell of the
/// group ended.
fn run_group<'a>(
    plan: &Plan,
    group: &'a [PlannedCell],
    (evaluate, out): (&std::path::Path, &std::path::Path),
    progress: &SweepProgress,
) -> Result<Vec<(&'a PlannedCell, CellEnd)>> {
    let mut ends = Vec::new();
    let mut open = Vec::new();
    for cell in group {
        let dir = out.join(cell.settings.directory_name());
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        if is_complete(&dir)? || (wait_for_writer(&dir, progress)? && is_complete(&dir)?) {
            ends.push((cell, CellEnd::WasComplete));
        } else {
            open.push((cell, dir));
        }
    }
    let Some(((cell, dir), others)) = open.split_first() else {
        return Ok(ends);
    };
    let mut command = Command::new(evaluate);
    command.args(plan.arguments((cell, dir), others));
    let bars = open.iter().map(|(cell, dir)| progress.begin(cell, dir));
    let bars: Vec<CellBar> = bars.collect();
    let outcome = launch(command, |line| bars[0].show(line));
    bars.into_iter().for_each(CellBar::finish);
    let failure = match outcome {
        Outcome::Success => incomplete_in_spite_of_success(),
        Outcome::Failure(failure) => failure,
    };
    for (cell, dir) in open {
        let end = if is_complete(&dir)? {
            remove_failure(&dir)?;
            CellEnd::Completed
        } else {
            failure.write(&dir)?;
            let last = failure.stderr_tail.last().cloned().unwrap_or_default();
            CellEnd::Failed(last)
        };
        ends.push((cell, end));
    }
    Ok(ends)
}

/// Waits while another process writes the cell, and returns whether there was one.
///
/// It may be left over from a killed sweep, and then ends after its current prompt, or belong to
/// another sweep.
fn wait_for_writer(dir: &std::path::Path, progress: &SweepProgress) -> Result<bool> {
    if !is_being_written(dir)? {
        return Ok(false);
    }
    let dir_name = dir.display();
    progress.say(&format!(
        "waiting for another process that writes {dir_name}"
    ));
    while is_being_written(dir)? {
        thread::sleep(LOOK_EVERY);
    }
    Ok(true)
}

/// Removes the failure recorded by an earlier run.
fn remove_failure(dir: &std::path::Path) -> Result<()> {
    let path = dir.join(RUN_FAILURE_FILE);
    if path.exists() {
        fs::remove_file(&path).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Returns the failure of a process that reported success although records are missing.
fn incomplete_in_spite_of_success() -> RunFailure {
    let line = "it ended with exit code 0, but records are missing";
    RunFailure::new(Some(0), vec![line.to_owned()])
}

#[expect(clippy::print_stdout, reason = "output of the program")]
fn list(plan: &Plan, out: &std::path::Path) -> Result<()> {
    for cell in &plan.cells {
        let name = cell.settings.directory_name();
        let complete = is_complete(&out.join(&name))?;
        println!("{} {name}", if complete { "complete" } else { "to run  " });
    }
    println!("{} cells, {} prompts", plan.cells.len(), plan.prompts());
    Ok(())
}

#[expect(clippy::print_stdout, reason = "output of the program")]
fn summarise(ends: &[(&PlannedCell, CellEnd)], out: &std::path::Path) -> Result<()> {
    let mut failed = 0;
    println!("{:<10} cell", "result");
    for (cell, end) in ends {
        let name = cell.settings.directory_name();
        match end {
            CellEnd::WasComplete | CellEnd::Completed => println!("{end:<10} {name}"),
            CellEnd::Failed(last) => {
                failed += 1;
                println!("{end:<10} {name}: {last}");
            }
        }
    }
    println!("cargo xtask report {}", out.display());
    if failed > 0 {
        bail!("{failed} of {} cells failed", ends.len());
    }
    Ok(())
}
