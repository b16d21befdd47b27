//! Measures speed and compares it with the limits of the machine: see `docs/benchmarks/README.md`.

mod dtype;
mod generation;
mod layers;
mod machine;
mod table;
mod weights;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;

use dtype::Dtype;
use generation::{Case, speed_table, start_table};
use layers::{LAYERS, Layer};
use machine::Machine;

#[derive(Args, Debug)]
pub(crate) struct BenchFlags {
    /// Measure for a shorter time, and generate fewer tokens
    #[arg(long)]
    quick: bool,
    /// Checkpoint to generate with, in addition to the demo pair
    #[arg(long, value_name = "DIR")]
    target: Option<PathBuf>,
    /// Draft of the target; without one, only prompt lookup is measured
    #[arg(long, value_name = "DIR", requires = "target")]
    draft: Option<PathBuf>,
    /// Question about an image, for the case with the draft
    #[arg(long, value_name = "TEXT", requires = "draft", default_value = QUESTION)]
    prompt: String,
    /// Element types of weights
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "f32,bf16,f16,int8,int4"
    )]
    dtypes: Vec<Dtype>,
    /// Program to generate with [default: built with cargo]
    #[arg(long, value_name = "PATH")]
    generate: Option<PathBuf>,
    /// File to write the tables to, as Markdown
    #[arg(long, value_name = "FILE.md")]
    out: Option<PathBuf>,
}

/// The question of the program `demo`.
const DEMO_QUESTION: &str = "Describe the image in detail.";
/// `--max-loss` for the demo pair, as in the program `demo`: its answers are too short to save
/// enough time for the first attempt at speculation.
const DEMO_MAX_LOSS: f64 = 0.2;
const QUESTION: &str = "Describe the image briefly.";
/// A prompt whose answer repeats a part of it, if the model follows the instruction.
const REPEAT: &str = "Repeat this text word for word: The mill stands by the river. The river \
    turns the wheel of the mill, and the wheel of the mill turns the stone. The stone grinds the \
    corn, and the miller by the river sells the flour.";
/// Number of runs of the demo pair, whose generations take milliseconds.
const DEMO_REPEATS: usize = 9;

/// Runs the benchmarks, prints the report, and writes it to a file if one is given.
pub(crate) fn run(flags: &BenchFlags, root: &Path) -> Result<()> {
    check(flags)?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if cfg!(debug_assertions) {
        return run_optimised(root, &arguments);
    }
    let mut report = Report::default();
    report.add(&machine::heading(root, &arguments)?)?;
    let generate = match &flags.generate {
        Some(path) => path.clone(),
        None => build_generate(root)?,
    };
    report.add(&format!("* generate: {}\n\n", built(&generate)?))?;

    let machine = Machine::measure();
    report.add(&machine.table().to_string())?;
    add_layers(flags, &machine, &mut report)?;
    add_generations(flags, root, &generate, &machine, &mut report)?;
    match &flags.out {
        Some(out) => fs::write(out, report.0).with_context(|| out.display().to_string()),
        None => Ok(()),
    }
}

/// Runs the same command in release mode. In debug builds, the debug assertions that tests need
/// also check each pointer in the kernels, so times would be too long.
fn run_optimised(root: &Path, arguments: &[String]) -> Result<()> {
    let manifest = root.join("Cargo.toml");
    let status = Command::new("cargo")
        .args(["run", "--release", "--package", "xtask", "--manifest-path"])
        .arg(&manifest)
        .arg("--")
        .args(arguments)
        .status()
        .context("cargo")?;
    if !status.success() {
        bail!("the optimised build failed: {status}");
    }
    Ok(())
}

/// Checks that paths exist before minutes are spent on measurements.
fn check(flags: &BenchFlags) -> Result<()> {
    for dir in flags.target.iter().chain(&flags.draft) {
        if !dir.is_dir() {
            bail!("{}: no such directory", dir.display());
        }
    }
    if let Some(generate) = &flags.generate
        && !generate.is_file()
    {
        bail!("{}: no such file", generate.display());
    }
    let folder = flags.out.as_deref().and_then(Path::parent);
    match folder {
        Some(folder) if folder != Path::new("") && !folder.is_dir() => {
            bail!("{}: no such directory", folder.display())
        }
        _ => Ok(()),
    }
}

/// Text that is printed as it is added.
#[derive(Default)]
struct Report(String);

impl Report {
    fn add(&mut self, text: &str) -> Result<()> {
        self.0.push_str(text);
        let mut stdout = io::stdout().lock();
        stdout.write_all(text.as_bytes())?;
        Ok(stdout.flush()?)
    }
}

fn add_layers(flags: &BenchFlags, machine: &Machine, report: &mut Report) -> Result<()> {
    let patience = Duration::from_millis(if flags.quick { 250 } else { 2_000 });
    for (inputs, outputs) in LAYERS {
        report.add(&format!("\n## Linear layer {inputs}x{outputs}\n\n"))?;
        let mut table = layers::table();
        for &dtype in &flags.dtypes {
            let layer = Layer::measure(dtype, (inputs, outputs), patience)?;
            layer.tabulate(machine, &mut table);
        }
        report.add(&table.to_string())?;
    }
    Ok(())
}

fn add_generations(
    flags: &BenchFlags,
    root: &Path,
    generate: &Path,
    machine: &Machine,
    report: &mut Report,
) -> Result<()> {
    report.add("\n## Generation\n\n")?;
    let (mut speed, mut start) = (speed_table(), start_table());
    for case in cases(flags, &root.join("fixtures")) {
        for &dtype in &flags.dtypes {
            let outcome = case.run(generate, dtype)?;
            outcome.tabulate_speed(machine, &mut speed);
            outcome.tabulate_start(&mut start);
        }
    }
    report.add(&format!("{speed}\n{start}"))
}

/// Returns the cases: always the demo pair, and a target with its draft and with prompt lookup.
fn cases(flags: &BenchFlags, fixtures: &Path) -> Vec<Case> {
    let image = fixtures.join("scenes/three-shapes.png");
    let demo = Case {
        name: "demo pair".to_owned(),
        target: fixtures.join("models/qwen-scenes"),
        draft: Some(fixtures.join("drafts/qwen-scenes-q2")),
        prompt: DEMO_QUESTION.to_owned(),
        image: Some(image.clone()),
        max_new_tokens: 256,
        max_loss: Some(DEMO_MAX_LOSS),
        repeats: DEMO_REPEATS,
    };
    let mut cases = vec![demo];
    let Some(target) = &flags.target else {
        return cases;
    };
    let lookup = Case {
        name: name(target),
        target: target.clone(),
        draft: None,
        prompt: REPEAT.to_owned(),
        image: None,
        max_new_tokens: if flags.quick { 16 } else { 128 },
        max_loss: None,
        repeats: 1,
    };
    if let Some(draft) = &flags.draft {
        cases.push(Case {
            draft: Some(draft.clone()),
            prompt: flags.prompt.clone(),
            image: Some(image),
            ..lookup.clone()
        });
    }
    cases.push(lookup);
    cases
}

/// Returns the last part of a path.
fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// Builds the program with the features of the whole workspace.
fn build_generate(root: &Path) -> Result<PathBuf> {
    let arguments = "build --release --workspace --bin generate";
    let status = Command::new("cargo")
        .current_dir(root)
        .args(arguments.split(' '))
        .status()
        .context("cargo")?;
    if !status.success() {
        bail!("cargo {arguments}: {status}");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let target = target.unwrap_or_else(|| root.join("target"));
    Ok(root.join(target).join("release/generate"))
}

/// Describes a program and when it was built, since its commit may differ from the current one.
fn built(program: &Path) -> Result<String> {
    let changed = fs::metadata(program).and_then(|file| file.modified());
    let changed = changed.with_context(|| program.display().to_string())?;
    let date = machine::date(machine::seconds(changed));
    Ok(format!("`{}`, built {date} (UTC)", program.display()))
}

#[cfg(test)]
mod tests;
