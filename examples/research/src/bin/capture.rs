//! Captures what a target computes over training conversations; merges and checks captures.
#![allow(clippy::print_stderr, reason = "a command-line program")]

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use examples_answer::command_line;
use examples_answer::failure::{Failure, exit_code};
use examples_answer::flags::ModelFlags;
use examples_answer::tree::TreeFlags;
use examples_research::capture::flags::{SourceFlags, StageFlags};
use examples_research::capture::report::write_manifest;
use examples_research::capture::run::{Outcome, capture};
use examples_research::capture::sizes::write_published;
use examples_research::launched::Launched;
use vispec_data::capture::{CaptureReader, Manifest, merge};

/// Make, merge and check training data for drafts
#[derive(Parser, Debug)]
struct Flags {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Capture conversations; an interrupted run resumes where it stopped
    Run(Box<RunFlags>),
    /// Merge the shares of several runs
    Merge {
        /// Directory of the merged capture
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Directories of the shares
        #[arg(required = true)]
        shares: Vec<PathBuf>,
    },
    /// Print the contents of a capture, finished or not
    Inspect {
        /// Directory of the capture
        dir: PathBuf,
    },
    /// Print the calculated disk usage of captures of the paper's targets
    Sizes,
    /// Read a capture and the image files that it refers to, and compare hashes
    Check {
        /// Directory of the capture
        dir: PathBuf,
    },
}

#[derive(Args, Debug)]
struct RunFlags {
    #[command(flatten)]
    models: ModelFlags,
    #[command(flatten)]
    source: SourceFlags,
    #[command(flatten)]
    stage: StageFlags,
    #[command(flatten)]
    tree: TreeFlags,
}

fn main() -> ExitCode {
    let flags: Flags = command_line::parse(env!("CARGO_BIN_NAME"));
    exit_code(|| match flags.command {
        Command::Run(flags) => run(flags.of(Launched::from_env())),
        Command::Merge { out, shares } => print(&merge(&shares, &out)?),
        Command::Inspect { dir } => print(&Manifest::read(&dir)?),
        Command::Sizes => Ok(write_published(&mut io::stdout().lock())?),
        Command::Check { dir } => check(&dir),
    })
}

impl RunFlags {
    /// Adjusts the flags of one of several processes that were started with the same flags: each
    /// gets its own share, unless a share is given.
    fn of(mut self, launched: Option<Launched>) -> Self {
        if let (None, Some(launched)) = (self.source.shard, launched) {
            self.source.shard = Some(launched.share());
            let (share, count) = (launched.rank + 1, launched.count);
            self.stage.out = self.stage.out.join(format!("share-{share:04}-of-{count}"));
        }
        self
    }
}

fn run(flags: RunFlags) -> Result<(), Failure> {
    flags.stage.check()?;
    flags.tree.check()?;
    flags.models.check()?;
    flags.source.check(flags.stage.stage)?;
    let engine = flags.models.load()?;
    let method = flags
        .models
        .load
        .method
        .unwrap_or_else(|| engine.default_method());
    let (size, notes) = flags.tree.measured_size(&engine, method)?;
    for note in notes {
        eprintln!("{note}");
    }
    let outcome = capture(&flags.source, &flags.stage, engine, (method, size))?;
    note(&outcome);
    print(&outcome.manifest)
}

/// Prints the elapsed time and the share spent on files to stderr.
fn note(outcome: &Outcome) {
    let (elapsed, files) = (outcome.elapsed.as_secs_f64(), outcome.files.as_secs_f64());
    let part = if elapsed > 0.0 { files / elapsed } else { 0.0 };
    eprintln!(
        "{} positions in {elapsed:.1} s, {:.1} % of it on file operations",
        outcome.captured,
        part * 100.0
    );
}

fn print(manifest: &Manifest) -> Result<(), Failure> {
    write_manifest(manifest, &mut io::stdout().lock())?;
    Ok(())
}

fn check(dir: &std::path::Path) -> Result<(), Failure> {
    let reader = CaptureReader::open(dir)?;
    let shards = reader.manifest().shards.len();
    let bar = indicatif::ProgressBar::new(shards as u64);
    reader.verify(|_| bar.inc(1))?;
    for index in 0..reader.len() {
        reader.tokens(index)?.images()?;
    }
    bar.finish_and_clear();
    print(reader.manifest())?;
    writeln!(io::stdout(), "all hashes match")?;
    Ok(())
}
