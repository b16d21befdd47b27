//! `cargo xtask make-draft`: makes a draft for a model, using only the model.
//!
//! ```text
//! target ─┬► capture: it asks itself, answers greedily, and its states are kept ─┬► train
//!         │                                                                      │    ▼
//!         ├► capture: other questions, sampled answers ──────────────────────────┴► train
//!         │                                                                           ▼
//!         └► capture: more of them ────────────────────────────────────────────────► train
//!                                                                                     ▼
//!                                                                              draft in bf16
//! ```

mod publish;

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::programs::{self, Programs};
use crate::steps::{KeyHasher, ProgramFlags, Runner, State, Step, Work};

/// Folder of the configs to train the draft with.
const RECIPES: &str = "examples/configs/make_draft";
/// Programs that steps run.
const PROGRAMS: [&str; 2] = ["capture", "train"];

#[derive(Args)]
pub(crate) struct Flags {
    /// Checkpoint of the model: a directory, or an id on the Hugging Face hub
    #[arg(long, value_name = "DIR|HUB_ID")]
    target: String,
    /// Directory for the output of all steps and, in its folder draft, for the draft; existing work
    /// is resumed
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Number of questions that the model writes and answers, five of nine at temperature 1
    #[arg(long, default_value_t = 18_000, value_parser = clap::value_parser!(u32).range(30..=1_000_000))]
    questions: u32,
    /// Directory of pictures to ask built-in questions about; the draft then gets ViSpec's vision
    /// adaptor
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Maximum number of tokens of an answer
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(8..=4096))]
    max_new_tokens: u32,
    /// Seed of questions and weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Directory of configs of `train`: first.toml for greedy answers, second.toml for greedy and
    /// sampled ones, third.toml for more sampled ones
    #[arg(long, value_name = "DIR")]
    config: Option<PathBuf>,
    /// Replace a value of all configs, such as optimizer.epochs=2; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Number of training processes, started with mpirun. A step has as many batches, unless --set
    /// data.accumulate=N sets another number. Programs of --programs need the feature mpi
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    ranks: u16,
    /// Directory of the programs [default: built with cargo, in release mode]
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
}

/// Runs all unfinished steps and writes the draft.
#[expect(clippy::print_stdout, reason = "output of the program")]
pub(crate) fn run(flags: &Flags) -> Result<()> {
    let ranks = usize::from(flags.ranks);
    let programs = match &flags.programs {
        Some(dir) => Programs::of(&std::path::absolute(dir)?).on(ranks),
        None => programs::build_for(&PROGRAMS, ranks)?,
    };
    let recipes = match &flags.config {
        Some(dir) => dir.clone(),
        None => crate::root().join(RECIPES),
    };
    let state = State::open(&flags.out)?;
    let steps = steps(flags, &recipes)?;
    Runner::new(&state, &programs).run(&steps)?;
    let training = &steps[steps.len() - 1].output;
    let draft = flags.out.join("draft");
    let size = publish::publish(&training.join("best"), &draft)?;
    println!("{}: {:.1} MB", draft.display(), size as f64 / 1e6);
    for line in publish::judgement(&training.join("metrics.jsonl"))? {
        println!("{line}");
    }
    println!(
        "try it: generate --target {} --draft {} --prompt \"...\" --compare",
        flags.target,
        draft.display()
    );
    Ok(())
}

/// One capture of the model's answers.
struct Answers {
    /// Name of the step and of its folder in `--out`.
    name: &'static str,
    /// Range of the questions that it asks.
    questions: Range<u32>,
    temperature: f32,
}

/// Returns the captures that the draft learns from.
///
/// The draft is used for greedy and for sampled answers, whose texts differ: answers at temperature
/// 1 contain words that greedy ones never do, and a wider variety of them.
fn answers(flags: &Flags) -> [Answers; 3] {
    let ninths = |n: u32| u32::try_from(u64::from(flags.questions) * u64::from(n) / 9);
    let ninths = |n| ninths(n).unwrap_or(u32::MAX);
    [
        ("answers", ninths(0)..ninths(4), 0.0),
        ("sampled-answers", ninths(4)..ninths(6), 1.0),
        ("more-sampled-answers", ninths(6)..flags.questions, 1.0),
    ]
    .map(|(name, questions, temperature)| Answers {
        name,
        questions,
        temperature,
    })
}

/// Plans the capture with index `number`.
fn capture(flags: &Flags, (number, answers): (u64, &Answers), target_key: &str) -> Step {
    let output = flags.out.join(answers.name);
    let Range { start, end } = answers.questions;
    // Pairs of pictures and built-in questions have a fixed order, from which each capture takes
    // its part. Questions that the target makes up depend on the seed.
    let (questions, part) = match &flags.images {
        Some(images) => (
            flags.questions,
            vec![
                ("--images", images.to_string_lossy().into_owned()),
                ("--start", start.to_string()),
                ("--end", end.to_string()),
            ],
        ),
        None => (end - start, Vec::new()),
    };
    let mut program = ProgramFlags::new(&[
        ("--target", &flags.target),
        ("--source", &"self"),
        ("--questions", &questions.to_string()),
        ("--stage", &"2"),
        ("--states", &"eagle3"),
        ("--storage", &"compact"),
        ("--max-new-tokens", &flags.max_new_tokens.to_string()),
        ("--temperature", &answers.temperature.to_string()),
        ("--batch", &"32"),
        ("--method", &"none"),
        ("--seed", &flags.seed.wrapping_add(number).to_string()),
        ("--out", &output),
    ])
    .first("run")
    .and("--as-is");
    for (flag, value) in part {
        program = program.and(flag).and(&value);
    }
    let said = format!("{:?}", program.0);
    Step {
        name: answers.name.to_owned(),
        key: KeyHasher::default().text(target_key).text(&said).key(),
        units: u64::from(end - start),
        output,
        work: Work::Program {
            program: "capture",
            arguments: program.0,
            lines: None,
        },
    }
}

/// One training.
struct Training<'a> {
    /// Name of the step and of its folder in `--out`.
    name: &'static str,
    recipe: PathBuf,
    /// The captures that it reads. Their last samples are held out.
    answers: &'a [&'a Step],
    /// The training that it continues.
    after: Option<&'a Step>,
}

fn train(flags: &Flags, training: &Training<'_>) -> Result<Step> {
    let recipe = &training.recipe;
    let text = fs::read_to_string(recipe).with_context(|| recipe.display().to_string())?;
    let output = flags.out.join(training.name);
    let seed = format!("seed={}", flags.seed);
    let queries = flags
        .images
        .as_ref()
        .map(|_| "draft.num_queries=2".to_owned());
    let batches = (flags.ranks > 1).then(|| format!("data.accumulate={}", flags.ranks));
    let settings: Vec<String> = batches
        .into_iter()
        .chain(flags.set.iter().cloned())
        .chain([seed])
        .chain(queries)
        .collect();
    let mut program = ProgramFlags::new(&[
        ("--config", recipe),
        ("--target", &flags.target),
        ("--out", &output),
    ])
    .with("--set", &settings);
    let mut key = KeyHasher::default();
    for step in training.answers {
        program = program.and("--data").and(&step.output.to_string_lossy());
        key = key.text(&step.key);
    }
    if let Some(step) = training.after {
        let draft = step.output.join("best");
        program = program.and("--init").and(&draft.to_string_lossy());
        key = key.text(&step.key);
    }
    let said = format!("{:?}", program.0);
    Ok(Step {
        name: training.name.to_owned(),
        key: key.text(&text).text(&said).key(),
        units: training.answers.iter().map(|step| step.units).sum(),
        output,
        work: Work::Program {
            program: "train",
            arguments: program.0,
            lines: None,
        },
    })
}

fn steps(flags: &Flags, recipes: &Path) -> Result<Vec<Step>> {
    let target_key = target_key(&flags.target)?;
    let captures = (0..).zip(answers(flags));
    let captures: Vec<Step> = captures
        .map(|(number, answers)| capture(flags, (number, &answers), &target_key))
        .collect();
    let [greedy, sampled, more] = &captures[..] else {
        unreachable!("a step for each capture");
    };
    let trainings = [
        ("training", "first.toml", vec![greedy]),
        ("second-training", "second.toml", vec![greedy, sampled]),
        ("third-training", "third.toml", vec![more]),
    ];
    let mut trained: Vec<Step> = Vec::new();
    for (name, recipe, answers) in trainings {
        let training = Training {
            name,
            recipe: recipes.join(recipe),
            answers: &answers,
            after: trained.last(),
        };
        let step = train(flags, &training)?;
        trained.push(step);
    }
    Ok(captures.into_iter().chain(trained).collect())
}

/// Identifies a target without reading all its weights: by the names and sizes of its files and its
/// config. The programs compare more.
fn target_key(target: &str) -> Result<String> {
    let dir = Path::new(target);
    if !dir.is_dir() {
        return Ok(target.to_owned());
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).with_context(|| target.to_owned())? {
        let entry = entry?;
        let size = entry.metadata()?.len();
        files.push(format!("{} {size}", entry.file_name().to_string_lossy()));
    }
    files.sort();
    let key = KeyHasher::default().text(&files.join("\n"));
    let config = dir.join("config.json");
    Ok(if config.exists() {
        key.file(&config)?.key()
    } else {
        key.key()
    })
}
