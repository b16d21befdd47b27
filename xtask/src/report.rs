//! `cargo xtask report`: tables, plots and a page of measured cells.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use vispec_report::report::{Predictions, Report};

#[derive(Args)]
pub(crate) struct Flags {
    /// Directory whose cells are reported, at any depth
    dir: PathBuf,
    /// Directory to write to [default: DIR/report]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Also predict smaller trees, for cells that know what passes cost
    #[arg(long)]
    predict: bool,
}

/// Writes the report. Cells that are not complete are named; none that is readable is an error.
#[expect(clippy::print_stdout, reason = "what a program says")]
pub(crate) fn run(flags: &Flags) -> Result<()> {
    let out = flags
        .out
        .clone()
        .unwrap_or_else(|| flags.dir.join("report"));
    let predictions = if flags.predict {
        Predictions::SmallerTrees
    } else {
        Predictions::None
    };
    let report = Report::of(&flags.dir, predictions)?;
    report.write(&out)?;
    for line in report.incomplete() {
        println!("not complete: {line}");
    }
    println!(
        "{} cells, {} plots, {} tables: {}",
        report.collection.cells.len(),
        report.figures.len(),
        report.tables.len(),
        out.join("report.html").display()
    );
    Ok(())
}
