//! Development tasks of this workspace: `cargo xtask tidy`, `fixtures`, `bench`, `curve`,
//! `gpu-check`, `load`, `make-draft`, `random-checkpoint`, `sweep`, `report` and `reproduce`.

mod bench;
mod curve;
mod fixtures;
mod gpu_check;
mod launch;
mod line_watcher;
mod load;
mod make_draft;
mod programs;
mod random_checkpoint;
mod report;
mod reproduce;
mod steps;
mod sweep;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Flags {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Check the house rules that no compiler checks: file headers, names, dependencies between
    /// crates
    Tidy,
    /// Check the carried models and cases against the manifest
    Fixtures,
    /// Measure linear layers and generation, and compare with the limits of the machine
    Bench(bench::BenchFlags),
    /// Plot learning curves of trainings
    Curve(curve::Flags),
    /// Check a device: its answers, the cost of passes, and the number of launches they take
    GpuCheck(gpu_check::Flags),
    /// Make a draft for a model, using only the model
    MakeDraft(make_draft::Flags),
    /// Measure how fast a server on this machine answers several concurrent clients
    Load(load::LoadFlags),
    /// Write a checkpoint with the shapes of a published model and random weights
    RandomCheckpoint(random_checkpoint::RandomCheckpointFlags),
    /// Write tables, plots and a report page for all cells below a directory
    Report(report::Flags),
    /// Train the drafts of the paper's comparison in miniature, measure them, and write a page
    Reproduce(reproduce::Flags),
    /// Run every cell of a grid, one process each; resumes an earlier sweep
    Sweep(sweep::Flags),
}

#[expect(clippy::print_stderr, reason = "output of the program")]
fn main() -> ExitCode {
    match run(Flags::parse().chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Omits the backtrace that the environment may ask for: the message is enough.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: Chore) -> Result<()> {
    let fixtures = root().join("fixtures");
    match chore {
        Chore::Tidy => tidy::check(&root()),
        Chore::Fixtures => fixtures::check(&fixtures),
        Chore::Bench(flags) => bench::run(&flags, &root()),
        Chore::Curve(flags) => curve::run(&flags),
        Chore::GpuCheck(flags) => gpu_check::run(&flags, &root()),
        Chore::Load(flags) => load::run(&flags),
        Chore::MakeDraft(flags) => make_draft::run(&flags),
        Chore::RandomCheckpoint(flags) => {
            random_checkpoint::write(&flags, &fixtures.join("models"))
        }
        Chore::Report(flags) => report::run(&flags),
        Chore::Reproduce(flags) => reproduce::run(&flags),
        Chore::Sweep(flags) => sweep::run(&flags),
    }
}

/// Returns the root of the workspace.
fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}
