//! `cargo xtask report`: writes tables, plots and a page about measured cells.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use vispec_report::report::{Predictions, Report};

#[derive(Args)]
pub(crate) struct Flags {
    /// Directory whose cells to report, at any depth
    dir: PathBuf,
    /// Directory to write to [default: DIR/report]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Also predict the speed of smaller trees, for cells with recorded costs of passes
    #[arg(long)]
    predict: bool,
}

/// Writes the report. Incomplete cells are listed; it is an error if no cell is readable.
#[expect(clippy::print_stdout, reason = "output of the program")]
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
