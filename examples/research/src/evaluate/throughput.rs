//! Throughput: all prompts of a task in batches, and one at a time.

use std::fs;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde::Serialize;
use vispec_core::{GenerationObserver, TargetModel as _, TokenId};
use vispec_data::Sample;
use vispec_models::{EncodedPrompt, Engine, Method};
use vispec_report::record::CellHeader;
use vispec_report::write_whole;

use super::prompts::Decoded;
use super::setup::{Setup, say};
use crate::together::Together;
use examples_answer::failure::Failure;
use examples_answer::run::{Settings, warm_up};

/// Name of the record in the output directory.
const FILE: &str = "throughput.json";

/// The content of the record.
#[derive(Debug, Serialize)]
struct Throughput {
    /// The cell and the machine.
    cell: CellHeader,
    /// Plain decoding and the method, each one at a time and in batches.
    runs: Vec<BatchRun>,
}

/// All prompts of the task with one batch size.
#[derive(Debug, Serialize)]
struct BatchRun {
    method: &'static str,
    batch: usize,
    prompts: usize,
    prompt_tokens: usize,
    new_tokens: usize,
    /// Time of all passes, including prefill.
    seconds: f64,
    /// New tokens per second.
    tokens_per_second: f64,
    /// Speed relative to the same method with a batch size of 1.
    over_one: f64,
    /// Whether all answers equal those of plain decoding with a batch size of 1.
    identical: bool,
}

/// Measures the cell one prompt at a time and `batch` at a time, with plain decoding and with the
/// method. Only the first turn of each sample is used.
///
/// # Errors
/// Any error of task, models and files.
pub(super) fn measure(mut setup: Setup, batch: usize) -> Result<(), Failure> {
    let cell = setup.cells.swap_remove(0);
    let out = &cell.out;
    fs::create_dir_all(out).with_context(|| out.display().to_string())?;
    let indices = Vec::from_iter(setup.prompts.of_shard(cell.header.shard));
    let samples = indices.iter().map(|&index| setup.prompts.sample(index));
    let samples = samples.collect::<Result<Vec<_>, _>>()?;
    let mut arms = vec![(Method::None, &setup.plain)];
    if setup.method != Method::None {
        arms.push((setup.method, &cell.speculative));
    }
    if let Some(sample) = samples.first() {
        let methods = arms.iter().map(|(method, _)| *method).collect::<Vec<_>>();
        let prompt = encode(&setup.engine, sample)?;
        warm_up(&setup.engine, &prompt, &methods, &cell.speculative)?;
    }
    let mut sizes = vec![1, batch];
    sizes.dedup();
    let mut runs: Vec<BatchRun> = Vec::new();
    let mut expected = None;
    for (method, settings) in arms {
        let mut one = None;
        for &size in &sizes {
            let answers = answer_all(&setup.engine, &samples, (method, settings), size)?;
            let new_tokens = answers.tokens.iter().map(Vec::len).sum();
            let seconds = answers.time.as_secs_f64();
            #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
            let tokens_per_second = new_tokens as f64 / seconds.max(f64::MIN_POSITIVE);
            let run = BatchRun {
                method: method.as_str(),
                batch: size,
                prompts: samples.len(),
                prompt_tokens: answers.prompt_tokens,
                new_tokens,
                seconds,
                tokens_per_second,
                over_one: tokens_per_second / *one.get_or_insert(tokens_per_second),
                identical: *expected.get_or_insert_with(|| answers.tokens.clone())
                    == answers.tokens,
            };
            writeln!(io::stdout(), "{}", line(&run))?;
            runs.push(run);
        }
    }
    let record = Throughput {
        cell: cell.header,
        runs,
    };
    let mut bytes = serde_json::to_vec_pretty(&record)?;
    bytes.push(b'\n');
    write_whole(&out.join(FILE), &bytes)?;
    Ok(())
}

fn line(run: &BatchRun) -> String {
    format!(
        "{}, batch {}: {} tokens of {} prompts, {:.1} tok/s, {:.2} x batch 1, identical: {}",
        run.method,
        run.batch,
        run.new_tokens,
        run.prompts,
        run.tokens_per_second,
        run.over_one,
        if run.identical { "yes" } else { "no" },
    )
}

/// The answers to all samples.
struct Answers {
    /// Tokens of each answer, in the order of the samples.
    tokens: Vec<Vec<TokenId>>,
    prompt_tokens: usize,
    /// Time spent in passes.
    time: Duration,
}

/// Index of a sample, stored with its generation.
struct Place(usize);

impl GenerationObserver for Place {}

/// Keeps the batch full while samples remain. Image encoding is not timed.
fn answer_all(
    engine: &Engine,
    samples: &[Sample],
    (method, settings): (Method, &Settings),
    batch: usize,
) -> Result<Answers, Failure> {
    say(&format!("{method}, batch {batch}"))?;
    let mut together = Together::new(engine, method, batch);
    let mut answers = Answers {
        tokens: vec![Vec::new(); samples.len()],
        prompt_tokens: 0,
        time: Duration::ZERO,
    };
    let mut waiting = samples.iter().enumerate();
    loop {
        while together.has_room() {
            let Some((index, sample)) = waiting.next() else {
                break;
            };
            let prompt = encode(engine, sample)?;
            let cache = engine.target().new_cache();
            let cache = cache.map_err(|error| anyhow::anyhow!(error))?;
            together.start(Place(index), (prompt, cache), settings)?;
        }
        if together.is_empty() {
            return Ok(answers);
        }
        let started = Instant::now();
        let finished = together.pass();
        answers.time += started.elapsed();
        for finished in finished {
            let session = finished.session?;
            answers.prompt_tokens += session.stats().prompt_tokens();
            answers.tokens[finished.observer.0] = session.tokens().to_vec();
        }
    }
}

/// Encodes the first question of a sample.
fn encode(engine: &Engine, sample: &Sample) -> Result<EncodedPrompt, Failure> {
    let shown = Decoded::of(sample)?;
    let encoded = engine.encode_media(&sample.messages, shown.media());
    let (prompt, _) = encoded.with_context(|| sample.id.clone())?;
    Ok(prompt)
}
