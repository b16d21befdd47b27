//! Lists evaluation tasks, shows their samples, and checks whether their files are present.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use examples_answer::command_line;
use examples_answer::failure::{Failure, exit_code};
use examples_research::shortage::ShortageFlag;
use vispec_data::{ReadOptions, Sample, TaskDefinition, TaskRegistry, listing};
use vispec_processor::{ImageOptions, Media, Processor};

/// List evaluation tasks, show their samples, and check their files
#[derive(Parser, Debug)]
struct Flags {
    /// TOML file of an additional task; may be repeated
    #[arg(long, global = true, value_name = "FILE")]
    task_file: Vec<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Print one line per task: name, title, samples, source
    List,
    /// Print a sample: its messages and the locations of its images
    Show {
        /// Name of the task
        name: String,
        /// Directory with one folder of files per task, named like the task; drawn tasks need none
        #[arg(long, default_value = ".")]
        data: PathBuf,
        /// Index of the sample, from 0
        #[arg(long, default_value_t = 0)]
        index: usize,
        /// Write the sample's images to this folder as PNG
        #[arg(long)]
        out: Option<PathBuf>,
        /// Also print the prompt as the chat template of this checkpoint renders it
        #[arg(long, value_name = "DIR")]
        target: Option<PathBuf>,
        #[command(flatten)]
        shortage: ShortageFlag,
    },
    /// Report which files of tasks are present and where to get the others
    Check {
        /// Names of tasks [default: all]
        names: Vec<String>,
        /// Directory with one folder of files per task, named like the task
        #[arg(long)]
        data: PathBuf,
    },
}

fn main() -> ExitCode {
    let flags: Flags = command_line::parse(env!("CARGO_BIN_NAME"));
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
            target,
            shortage,
        } => {
            let task = registry.get(name).map_err(Failure::usage)?;
            let options = ReadOptions {
                shortage: shortage.shortage(),
                ..ReadOptions::default()
            };
            let mut samples = task.open(&data.join(task.name()), &options)?;
            let sample = samples.sample(*index)?;
            show(&sample, out.as_deref(), &options.image_options)?;
            if let Some(target) = target {
                render(task, &sample, target, &options.image_options)?;
            }
        }
        Command::Check { names, data } => check(&registry, names, data)?,
    }
    Ok(())
}

fn show(sample: &Sample, out: Option<&Path>, options: &ImageOptions) -> Result<(), Failure> {
    listing::write_sample(sample, &mut io::stdout().lock())?;
    if let Some(out) = out {
        for path in listing::write_images(sample, out, options)? {
            writeln!(io::stdout(), "wrote {}", path.display())?;
        }
    }
    Ok(())
}

/// Prints the rendered prompt of a sample for a target.
fn render(
    task: &TaskDefinition,
    sample: &Sample,
    target: &Path,
    options: &ImageOptions,
) -> Result<(), Failure> {
    let pixels = task.pixel_limits();
    let processor = Processor::from_dir(target)?.with_pixels(pixels.min, pixels.max)?;
    let sample = if processor.reads_videos() {
        sample.clone()
    } else {
        sample.clone().with_frames_as_images()
    };
    let images = sample.images.iter().map(|image| image.decode(options));
    let images = images.collect::<Result<Vec<_>, _>>()?;
    let videos = sample.videos.iter().map(|video| video.decode(options));
    let videos = videos.collect::<Result<Vec<_>, _>>()?;
    let media = Media {
        images: &images,
        videos: &videos,
    };
    let prompt = processor.prepare_media(&sample.messages, media)?;
    let image_tokens: usize = prompt.image_runs.iter().map(ExactSizeIterator::len).sum();
    writeln!(
        io::stdout(),
        "prompt of {}, {} tokens, {image_tokens} of them for {} images and {} videos:\n{}",
        target.display(),
        prompt.token_ids.len(),
        images.len(),
        videos.len(),
        prompt.rendered,
    )?;
    Ok(())
}

/// Fails if a named task cannot be run; without names it only reports.
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
