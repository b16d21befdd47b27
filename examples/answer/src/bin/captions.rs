//! Captions many images, one JSON line each, and resumes an interrupted run.
#![allow(clippy::print_stderr, reason = "a command-line program")]

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use clap::Parser;
use examples_answer::captions::CaptionFile;
use examples_answer::failure::{Failure, with_causes};
use examples_answer::flags::{DecodeFlags, ImageFlags, MAX_BATCH};
use examples_answer::progress_lines::ProgressLines;
use examples_answer::served::{self, ServedFlags};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use vispec::{
    Answer, AnswerRequest, DecodedImage, Engine, EngineSettings, Messages, Sampler,
    SchedulerOptions,
};

/// Caption images; a run with the same output file resumes an interrupted one
#[derive(Parser, Debug)]
struct Flags {
    #[command(flatten)]
    models: ServedFlags,
    #[command(flatten)]
    decode: DecodeFlags,
    #[command(flatten)]
    reading: ImageFlags,
    /// Question about each image
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "Describe the image briefly."
    )]
    prompt: String,
    /// Output file of JSON lines; images that it already contains are skipped
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Number of images that are captioned at the same time, in shared passes
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=MAX_BATCH), allow_negative_numbers = true)]
    batch: u16,
    /// Record images that cannot be read or captioned and continue, instead of stopping at the
    /// first
    #[arg(long)]
    keep_going: bool,
    /// The images
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<PathBuf>,
}

fn main() -> ExitCode {
    let name = env!("CARGO_BIN_NAME");
    served::main(
        name,
        |flags: &mut Flags| (&flags.models, &mut flags.decode),
        run,
    )
}

fn run(flags: &Flags) -> Result<(), Failure> {
    let mut captions = CaptionFile::open(&flags.out, &flags.prompt)?;
    let served = flags.models.load(&flags.decode.tree)?;
    let (engine, _carried) = served.engine(&flags.decode.tree, settings(flags))?;
    let sampler = flags.decode.sampler()?;
    let interrupted = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&interrupted);
    ctrlc::set_handler(move || asked.store(true, Ordering::Relaxed))?;

    let bar = ProgressBar::new(flags.images.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} {eta} left {msg}") {
        bar.set_style(style);
    }
    let mut lines = ProgressLines::default();
    let (mut failed, mut captioned) = (0_usize, 0_usize);
    let mut open = flags.images.iter();
    // Lines are written in the order of the images, whichever answer ends first.
    let mut answers: VecDeque<(String, anyhow::Result<Answer>)> = VecDeque::new();
    loop {
        while answers.len() < usize::from(flags.batch) {
            let Some(path) = open.next() else { break };
            let name = path.display().to_string();
            if captions.has(&name) {
                bar.inc(1);
            } else {
                let answer = ask(flags, sampler, &engine, path);
                answers.push_back((name, answer));
            }
        }
        let Some((name, answer)) = answers.pop_front() else {
            break;
        };
        if interrupted.load(Ordering::Relaxed) {
            bar.finish_and_clear();
            return Err(Failure::Other(anyhow::anyhow!(
                "interrupted; run the same command again to resume at {name}"
            )));
        }
        let caption = answer.and_then(|answer| caption(answer).with_context(|| name.clone()));
        match caption {
            Ok(caption) => {
                captioned += 1;
                captions.append(&name, caption)?;
            }
            Err(error) if flags.keep_going => {
                failed += 1;
                bar.set_message(format!("({failed} failed)"));
                captions.append(&name, json!({"error": with_causes(&error)}))?;
            }
            Err(error) => return Err(error.into()),
        }
        bar.inc(1);
        lines.step(&bar, "images");
    }
    bar.finish_and_clear();
    if failed > 0 {
        let said = format!(
            "{failed} of {} images failed; their lines contain the reasons",
            flags.images.len()
        );
        if captioned == 0 {
            return Err(Failure::Other(anyhow::anyhow!(said)));
        }
        eprintln!("{said}");
    }
    Ok(())
}

fn settings(flags: &Flags) -> EngineSettings {
    EngineSettings {
        image_options: flags.reading.options(),
        // No image is used twice.
        conversation_memory: 0,
        image_memory: 0,
        scheduler: SchedulerOptions {
            max_running: usize::from(flags.batch),
            ..SchedulerOptions::default()
        },
        ..EngineSettings::default()
    }
}

/// Starts the caption of an image.
fn ask(flags: &Flags, sampler: Sampler, engine: &Engine, path: &Path) -> anyhow::Result<Answer> {
    let image = DecodedImage::open(path, &flags.reading.options())?;
    let messages = Messages::from_prompt(None, &flags.prompt, 1);
    let request = AnswerRequest {
        max_new_tokens: flags.decode.max_new_tokens,
        sampler,
        seed: flags.decode.seed,
        ..AnswerRequest::chat(messages, vec![image])
    };
    let answer = engine.start(request);
    answer.with_context(|| path.display().to_string())
}

/// Waits for a caption and returns its fields.
fn caption(mut answer: Answer) -> anyhow::Result<serde_json::Value> {
    let text = answer.text()?;
    let stats = answer.answered().map(|answered| answered.stats.clone());
    let stats = stats.unwrap_or_default();
    Ok(json!({
        "caption": text,
        "new_tokens": stats.new_tokens(),
        "tau": stats.tau(),
        "tokens_per_cycle": stats.tokens_per_cycle(),
        "tokens_per_second": stats.decode_tokens_per_second(),
    }))
}
