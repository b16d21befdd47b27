//! `cargo xtask reproduce`: runs the paper's comparison in miniature, from drawing pictures to
//! writing tables.

mod experiment;
mod report;
mod steps;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::programs::{self, Programs};
use crate::steps::{Runner, State};
use experiment::Experiment;

/// Directory of the files that describe the experiments.
const EXPERIMENTS: &str = "examples/configs/reproduce";
/// Programs that steps run.
const PROGRAMS: [&str; 6] = [
    "make_target",
    "draw_scenes",
    "draw_pictures",
    "capture",
    "train",
    "evaluate",
];

#[derive(Args)]
pub(crate) struct Flags {
    /// Size of the experiment
    #[arg(long, value_enum)]
    scale: ScaleName,
    /// Directory for the output of all steps; existing work is resumed
    /// [default: target/reproduce/SCALE]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Directory for tables and plots
    /// [default: docs/reproduction for mini and pictures, OUT/report for others]
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Directory of the programs [default: built with cargo, in release mode]
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
    /// File that describes the experiment
    #[arg(long, value_name = "FILE")]
    experiment: Option<PathBuf>,
    /// For pictures: checkpoint in the layout of LLaVA-1.5, whose language model learns to see
    #[arg(long, value_name = "DIR")]
    language_model: Option<PathBuf>,
    /// For pictures: directory with icon sets and names, as installed by npm for @iconify-json/*
    /// and emojibase-data
    #[arg(long, value_name = "DIR")]
    pictures: Option<PathBuf>,
    /// Number of training processes, started with mpirun. A step has as many batches, so several
    /// processes give other drafts than one. Programs of --programs need the feature mpi
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    ranks: u16,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq)]
enum ScaleName {
    /// The comparison, within an hour on two cores
    Mini,
    /// All steps from end to end, in minutes; the results are meaningless
    Smoke,
    /// The comparison on a pretrained language model that learns to see, within 8 hours on two
    /// cores
    Pictures,
    /// The steps of `pictures` from end to end, in minutes; the results are meaningless
    PicturesSmoke,
}

impl ScaleName {
    fn as_str(self) -> &'static str {
        match self {
            Self::Mini => "mini",
            Self::Smoke => "smoke",
            Self::Pictures => "pictures",
            Self::PicturesSmoke => "pictures-smoke",
        }
    }

    /// Returns the name of the experiment file.
    fn experiment(self) -> &'static str {
        match self {
            Self::Mini | Self::Smoke => "experiment.toml",
            Self::Pictures => "pictures.toml",
            Self::PicturesSmoke => "pictures-smoke.toml",
        }
    }

    fn report(self, out: &Path) -> PathBuf {
        match self {
            Self::Mini | Self::Pictures => crate::root().join("docs/reproduction"),
            Self::Smoke | Self::PicturesSmoke => out.join("report"),
        }
    }
}

/// Runs all unfinished steps and writes the report.
pub(crate) fn run(flags: &Flags) -> Result<()> {
    let root = crate::root();
    let scale_name = flags.scale.as_str();
    let out = match &flags.out {
        Some(out) => absolute(out)?,
        None => root.join("target/reproduce").join(scale_name),
    };
    let report_dir = match &flags.report {
        Some(dir) => absolute(dir)?,
        None => flags.scale.report(&out),
    };
    let file = match &flags.experiment {
        Some(file) => absolute(file)?,
        None => root.join(EXPERIMENTS).join(flags.scale.experiment()),
    };
    let [language_model, pictures] = [&flags.language_model, &flags.pictures]
        .map(|dir| dir.as_deref().map(absolute).transpose());
    let (language_model, pictures) = (language_model?, pictures?);
    let ranks = usize::from(flags.ranks);
    let programs = match &flags.programs {
        Some(dir) => Programs::of(&absolute(dir)?).on(ranks),
        None => programs::build_for(&PROGRAMS, ranks)?,
    };
    // Run from the root, so that records name carried checkpoints by relative paths.
    std::env::set_current_dir(&root).with_context(|| root.display().to_string())?;

    let experiment = Experiment::read(&file)?
        .on(flags.ranks)
        .seeing(language_model.as_deref(), pictures.as_deref());
    let scale = experiment.scale(scale_name)?;
    let steps = steps::plan(&experiment, scale, &out)?;
    let state = State::open(&out)?;
    let outcomes = Runner::new(&state, &programs).run(&steps)?;
    let report = report::Report {
        scale_name,
        experiment: &experiment,
        scale,
        out: &out,
        steps: &outcomes,
    };
    report.write(&report_dir)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| path.display().to_string())
}
