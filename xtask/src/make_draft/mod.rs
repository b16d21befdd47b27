//! `cargo xtask make-draft`: a draft for a model, from nothing but the model.
//!
//! ```text
//! target ─► capture: it asks itself, answers, and its states are kept ─► train ─► draft in bf16
//! ```

mod publish;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::programs::{self, Programs};
use crate::steps::{KeyHasher, ProgramFlags, Runner, State, Step, Work};

/// How the draft is trained.
const RECIPE: &str = "examples/configs/make_draft/recipe.toml";
/// Programs that steps run.
const PROGRAMS: [&str; 2] = ["capture", "train"];

#[derive(Args)]
pub(crate) struct Flags {
    /// Checkpoint of the model: a directory, or an id on the Hugging Face hub
    #[arg(long, value_name = "DIR|HUB_ID")]
    target: String,
    /// Directory for everything that steps make, and for the draft, in its folder draft; what is
    /// there is gone on with
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Questions that the model asks itself and answers
    #[arg(long, default_value_t = 8000, value_parser = clap::value_parser!(u32).range(20..=1_000_000))]
    questions: u32,
    /// Pictures to ask about with built-in questions, for a draft that sees; the draft then has the
    /// vision adaptor of ViSpec
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Tokens of an answer at most
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(8..=4096))]
    max_new_tokens: u32,
    /// Seed of questions and weights
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How the draft is trained: a config of `train`
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Replaces a value of the config, such as optimizer.epochs=2; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Directory of the programs [default: built with cargo, in release mode]
    #[arg(long, value_name = "DIR")]
    programs: Option<PathBuf>,
}

/// Does all steps that are not done, and writes the draft.
#[expect(clippy::print_stdout, reason = "what a program says")]
pub(crate) fn run(flags: &Flags) -> Result<()> {
    let programs = match &flags.programs {
        Some(dir) => Programs::of(&std::path::absolute(dir)?),
        None => programs::build(&PROGRAMS)?,
    };
    let recipe = match &flags.config {
        Some(file) => file.clone(),
        None => crate::root().join(RECIPE),
    };
    let state = State::open(&flags.out)?;
    let steps = steps(flags, &recipe)?;
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

fn steps(flags: &Flags, recipe: &Path) -> Result<Vec<Step>> {
    let text = fs::read_to_string(recipe).with_context(|| recipe.display().to_string())?;
    let answers = flags.out.join("answers");
    let questions = flags.questions.to_string();
    let tokens = flags.max_new_tokens.to_string();
    let seed = flags.seed.to_string();
    let mut capture = ProgramFlags::new(&[
        ("--target", &flags.target),
        ("--source", &"self"),
        ("--questions", &questions),
        ("--stage", &"2"),
        ("--states", &"eagle3"),
        ("--storage", &"compact"),
        ("--max-new-tokens", &tokens),
        ("--batch", &"32"),
        ("--method", &"none"),
        ("--seed", &seed),
        ("--out", &answers),
    ])
    .first("run")
    .and("--as-is");
    if let Some(images) = &flags.images {
        capture = capture.and("--images").and(&images.to_string_lossy());
    }
    let target_key = target_key(&flags.target)?;
    let said = format!("{:?}", capture.0);
    let capture = Step {
        name: "capture".to_owned(),
        key: KeyHasher::default().text(&target_key).text(&said).key(),
        units: u64::from(flags.questions),
        output: answers.clone(),
        work: Work::Program {
            program: "capture",
            arguments: capture.0,
            lines: None,
        },
    };

    let output = flags.out.join("training");
    let seed = format!("seed={seed}");
    let queries = flags
        .images
        .as_ref()
        .map(|_| "draft.num_queries=2".to_owned());
    let settings: Vec<String> = flags
        .set
        .iter()
        .cloned()
        .chain([seed])
        .chain(queries)
        .collect();
    let train = ProgramFlags::new(&[
        ("--config", &recipe),
        ("--target", &flags.target),
        ("--data", &answers),
        ("--out", &output),
    ])
    .with("--set", &settings);
    let said = format!("{:?}", train.0);
    let training = Step {
        name: "train".to_owned(),
        key: KeyHasher::default()
            .text(&capture.key)
            .text(&text)
            .text(&said)
            .key(),
        units: u64::from(flags.questions),
        output,
        work: Work::Program {
            program: "train",
            arguments: train.0,
            lines: None,
        },
    };
    Ok(vec![capture, training])
}

/// Tells targets apart without reading all their weights: names and sizes of files, and the config.
/// The programs compare more.
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
