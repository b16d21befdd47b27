//! Chores of this workspace: `cargo xtask tidy`, `fixtures`, `bench` and
//! `random-checkpoint`.

mod bench;
mod fixtures;
mod random_checkpoint;
mod tidy;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Flags {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Check house rules that no compiler knows: file heads, names, which crate may use which
    Tidy,
    /// Check that the carried models and cases are those of the manifest
    Fixtures,
    /// Measure linear layers and generation, and compare with what the machine can do
    Bench(bench::BenchFlags),
    /// Write a checkpoint with the shapes of a published model and random weights
    RandomCheckpoint(random_checkpoint::RandomCheckpointFlags),
}

fn main() -> Result<()> {
    let fixtures = root().join("fixtures");
    match Flags::parse().chore {
        Chore::Tidy => tidy::check(&root()),
        Chore::Fixtures => fixtures::check(&fixtures),
        Chore::Bench(flags) => bench::run(&flags, &root()),
        Chore::RandomCheckpoint(flags) => {
            random_checkpoint::write(&flags, &fixtures.join("models/qwen-tied"))
        }
    }
}

/// Root of the workspace.
fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}
