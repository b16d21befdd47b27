//! Chores of this workspace: `cargo xtask tidy`, `cargo xtask fixtures`.

mod fixtures;
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
}

fn main() -> Result<()> {
    match Flags::parse().chore {
        Chore::Tidy => tidy::check(&root()),
        Chore::Fixtures => fixtures::check(&root().join("fixtures")),
    }
}

/// Root of the workspace.
fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}
