//! Lists evaluation tasks, shows their samples, and checks whether their files are there.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use vispec_data::{ReadOptions, TaskDefinition, TaskRegistry, listing};
use vispec_examples::failure::{Failure, exit_code};

/// List evaluation tasks, show their samples, check their files
#[derive(Parser, Debug)]
#[command(version)]
struct Flags {
    /// TOML file of a further task; may be given several times
    #[arg(long, global = true, value_name = "FILE")]
    task_file: Vec<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Print one line per task: name, title, samples, source
    List,
    /// Print a sample: its messages and where its images are
    Show {
        /// Name of the task
        name: String,
        /// Directory with a folder of files for each task, called like the task; drawn tasks need none
        #[arg(long, default_value = ".")]
        data: PathBuf,
        /// Which sample, from 0
        #[arg(long, default_value_t = 0)]
        index: usize,
        /// Write the sample's images to this folder as PNG
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Say which files of tasks are there and where to get the others
    Check {
        /// Names of tasks; all if none is given
        names: Vec<String>,
        /// Directory with a folder of files for each task, called like the task
        #[arg(long)]
        data: PathBuf,
    },
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    exit_code(|| run(&flags))
}

fn run(flags: &Flags) -> Result<(), Failure> {
    let mut registry = TaskRegistry::builtin();
    for path in &flags.task_file {
        registry.add(TaskDefinition::read(path)?)?;
    }
    match &flags.command {
        Command::List => listing::write_tasks(&registry, &mut io::stdout().lock())?,
        Command::Show {
            name,
            data,
            index,
            out,
        } => show(
            registry.get(name).map_err(Failure::usage)?,
            data,
            *index,
            out.as_deref(),
        )?,
        Command::Check { names, data } => check(&registry, names, data)?,
    }
    Ok(())
}

fn show(
    task: &TaskDefinition,
    data: &Path,
    index: usize,
    out: Option<&Path>,
) -> Result<(), Failure> {
    let options = ReadOptions::default();
    let sample = task
        .open(&data.join(task.name()), &options)?
        .sample(index)?;
    listing::write_sample(&sample, &mut io::stdout().lock())?;
    if let Some(out) = out {
        for path in listing::write_images(&sample, out, &options.image_limits)? {
            writeln!(io::stdout(), "wrote {}", path.display())?;
        }
    }
    Ok(())
}

/// Fails if a task that was named cannot be run; without names it only reports.
fn check(registry: &TaskRegistry, names: &[String], data: &Path) -> Result<(), Failure> {
    let tasks: Vec<&TaskDefinition> = if names.is_empty() {
        registry.iter().collect()
    } else {
        let tasks = names.iter().map(|name| registry.get(name));
        tasks.collect::<Result<_, _>>().map_err(Failure::usage)?
    };
    let mut not_ready = Vec::new();
    for task in tasks {
        let report = task.check(&data.join(task.name()));
        listing::write_check(&report, &mut io::stdout().lock())?;
        if !report.is_ready() {
            not_ready.push(task.name());
        }
    }
    if names.is_empty() || not_ready.is_empty() {
        return Ok(());
    }
    Err(anyhow::anyhow!("not ready: {}", not_ready.join(", ")).into())
}
