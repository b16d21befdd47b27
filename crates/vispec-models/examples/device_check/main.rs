//! Checks a device: whether its answers equal those of the reference, how often trees and single
//! tokens disagree, and how much time and how many launches passes take. `cargo xtask gpu-check`
//! builds and runs it.
//!
//! Writes `device-check.json` and `device-check.md` to a folder and downloads nothing.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a check that cannot run may panic, and prints its progress"
)]

mod bandwidth;
mod launches;
#[path = "../../tests/reference/mod.rs"]
mod reference;
mod report;
mod speed;

use std::error::Error;
use std::fs;
use std::iter;
use std::num::NonZeroUsize;
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use reference::{Case, Decoding, shape};
use report::{
    Bandwidth, CaseReport, Disagreement, ModelReport, NotMeasured, PairReport, Report, Tokens,
};
use speed::Measured;
use vispec_core::{BoxError, NodeId, Sampler, TargetLogits, TargetModel, TargetOutput, TokenTree};
use vispec_models::{
    DeviceSpec, DraftVocab, DtypeChoice, EncodedPrompt, Engine, EngineOptions, KvPrecision,
    LayerIds, Method,
};

#[derive(Parser)]
struct Flags {
    /// The device to check
    #[arg(long)]
    device: DeviceSpec,
    /// Element type of the tiny models
    #[arg(long, default_value = "f32")]
    dtype: DtypeChoice,
    /// Maximum number of cases of the reference, evenly spread over all of them
    #[arg(long, default_value_t = 50)]
    cases: usize,
    /// A target to measure in addition to the tiny one, such as a random checkpoint; repeatable
    #[arg(long = "target")]
    targets: Vec<PathBuf>,
    /// A draft for such a target: the first draft belongs to the first target, and so on
    #[arg(long = "draft")]
    drafts: Vec<PathBuf>,
    /// Element type of these targets and drafts; default: bf16 if the device supports it, otherwise
    /// --dtype
    #[arg(long)]
    target_dtype: Option<DtypeChoice>,
    /// Memory bandwidth of the device in GB/s; default: measured
    #[arg(long)]
    bandwidth: Option<f64>,
    /// Maximum number of tokens of measured answers
    #[arg(long, default_value_t = 64)]
    new_tokens: usize,
    /// Folder for the results
    #[arg(long)]
    out: PathBuf,
}

/// Number of rows of padded passes, enough for a tree of 30 nodes.
const PADDED_ROWS: NonZeroUsize = NonZeroUsize::new(32).unwrap();

/// Whether a target's passes are padded to [`PADDED_ROWS`].
#[derive(Clone, Copy)]
enum Passes {
    AsTheyAre,
    Padded,
}

impl Passes {
    fn of(self, engine: Engine) -> Result<Engine, BoxError> {
        Ok(match self {
            Self::AsTheyAre => engine,
            Self::Padded => engine.with_padded_passes(PADDED_ROWS)?,
        })
    }
}

fn engine(
    flags: &Flags,
    (target, draft): (PathBuf, Option<PathBuf>),
    dtype: DtypeChoice,
) -> Result<Engine, BoxError> {
    Ok(Engine::load(&EngineOptions {
        target,
        draft,
        draft_vocab: DraftVocab::Auto,
        draft_layer_ids: LayerIds::Auto,
        device: flags.device.open()?,
        dtype,
        kv: KvPrecision::Auto,
    })?)
}

fn case(flags: &Flags, case: &Case) -> Result<CaseReport, BoxError> {
    let fixtures = reference::fixtures();
    let pair = (fixtures.join(&case.model), Some(fixtures.join(&case.draft)));
    let engine = engine(flags, pair, flags.dtype)?;
    let prompt = case.encode(&engine);
    let settings = &case.settings;
    let expected = &case.ar_ids[..case.ar_ids.len().min(settings.max_new_tokens)];
    let tree = shape(settings.depth, settings.top_k, settings.total_token);
    let decoding = Decoding::greedy(settings.max_new_tokens);
    let start = Instant::now();
    let plain = decoding.try_answer(&engine, &prompt, Method::None, tree, &mut ())?;
    let drafted = decoding.try_answer(&engine, &prompt, case.method.parse()?, tree, &mut ())?;
    Ok(CaseReport {
        name: case.name(),
        plain: Tokens::compare(&plain.tokens, expected),
        drafted: Tokens::compare(&drafted.tokens, expected),
        tau: drafted.stats.tau(),
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// Compares a drafter's tokens on the device, greedy and at temperature 1, with those of plain
/// decoding on the CPU.
fn pair(
    flags: &Flags,
    (target, draft, method): (&str, Option<&str>, Method),
) -> Result<PairReport, BoxError> {
    let dir = |draft: &str| reference::fixtures().join("drafts").join(draft);
    let models = reference::fixtures().join("models");
    let engine = engine(flags, (models.join(target), draft.map(dir)), flags.dtype)?;
    let host = reference::load(target, None, flags.dtype);
    let text = "What shapes are there?";
    let (prompt, on_host) = (
        reference::question(&engine, target, text),
        reference::question(&host, target, text),
    );
    let tree = shape(3, 4, 16);
    let compare = |sampler| -> Result<Tokens, BoxError> {
        let decoding = Decoding {
            sampler,
            seed: 3,
            max_new_tokens: 16,
        };
        let expected = decoding.try_answer(&host, &on_host, Method::None, tree, &mut ())?;
        let found = decoding.try_answer(&engine, &prompt, method, tree, &mut ())?;
        Ok(Tokens::compare(&found.tokens, &expected.tokens))
    };
    Ok(PairReport {
        name: format!("{target}, {}", draft.unwrap_or("prompt lookup")),
        greedy: compare(Sampler::Greedy)?,
        sampled: compare(Sampler::new(1.0, None, None)?)?,
    })
}

/// Returns a chain of the tokens, with the first as the root.
fn chain(tokens: &[u32]) -> TokenTree {
    let mut tree = TokenTree::with_capacity(tokens[0], tokens.len());
    let mut parent = NodeId::ROOT;
    for &token in &tokens[1..] {
        parent = tree.push(parent, token).unwrap();
    }
    tree
}

fn logits(
    engine: &Engine,
    prompt: &EncodedPrompt,
    passes: &[&[u32]],
) -> Result<Vec<Vec<f32>>, BoxError> {
    let target = engine.target();
    let mut cache = target.new_cache()?;
    target.prefill(prompt, &mut cache)?;
    let mut rows = Vec::new();
    for tokens in passes {
        let TargetOutput { mut logits, .. } = target.verify(&chain(tokens), &mut cache)?;
        for row in 0..tokens.len() {
            rows.push(logits.read_row(row)?.to_vec());
        }
    }
    Ok(rows)
}

/// Returns the token with the highest logit, and its lead over the second.
fn best(row: &[f32]) -> (usize, f32) {
    let (mut first, mut second) = ((0, f32::NEG_INFINITY), f32::NEG_INFINITY);
    for (token, &logit) in row.iter().enumerate() {
        if logit > first.1 {
            second = first.1;
            first = (token, logit);
        } else {
            second = second.max(logit);
        }
    }
    (first.0, first.1 - second)
}

/// Compares passes over single tokens with passes over sixteen, on answers of the reference.
fn disagreement(flags: &Flags, cases: &[Case], passes: Passes) -> Result<Disagreement, BoxError> {
    let mut found = Disagreement::default();
    for case in cases.iter().take(8) {
        let pair = (reference::fixtures().join(&case.model), None);
        let engine = engine(flags, pair, flags.dtype)?;
        let engine = passes.of(engine)?;
        let prompt = case.encode(&engine);
        let tokens = &case.ar_ids[..case.ar_ids.len().min(16)];
        let single: Vec<&[u32]> = tokens.chunks(1).collect();
        let alone = logits(&engine, &prompt, &single)?;
        let together = logits(&engine, &prompt, &[tokens])?;
        for (alone, together) in alone.iter().zip(&together) {
            let differences = alone.iter().zip(together).map(|(a, b)| (a - b).abs());
            found.largest = differences.fold(found.largest, f32::max);
            found.rows += 1;
            let ((pick, gap), (other, _)) = (best(alone), best(together));
            if pick != other {
                found.other_picks += 1;
                found.largest_gap_of_other_picks = found.largest_gap_of_other_picks.max(gap);
            }
        }
    }
    Ok(found)
}

/// Measures a model and turns panics into errors.
fn speed(flags: &Flags, measured: &Measured) -> Result<ModelReport, BoxError> {
    println!("measuring {}", measured.name());
    let (target, draft) = (measured.target.clone(), measured.draft.clone());
    let work = || {
        let engine = engine(flags, (target, draft), measured.dtype)?;
        speed::model(measured, engine, flags.new_tokens)
    };
    // A device that is out of memory panics on its own threads, once per tensor. These messages are
    // silenced, since the result contains the error as well.
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    panic::set_hook(hook);
    // Free the memory for the next model.
    flags.device.open()?.memory_cleanup();
    result.unwrap_or_else(|panicked| {
        let said = panicked.downcast::<String>();
        Err(said.map_or("a panic".to_owned(), |said| *said).into())
    })
}

/// Joins an error and its causes in one line.
fn in_one_line(error: &(dyn Error + 'static)) -> String {
    let causes = iter::successors(Some(error), |&error| error.source());
    let said: Vec<String> = causes.map(ToString::to_string).collect();
    said.join(": ").replace('\n', " ")
}

/// Measures the tiny pair of this repository and the given targets. Targets that the device cannot
/// run are returned separately, with the reason.
fn speeds(flags: &Flags) -> Result<(Vec<ModelReport>, Vec<NotMeasured>), BoxError> {
    let fixtures = reference::fixtures();
    let carried = Measured {
        target: fixtures.join("models/qwen-untied"),
        draft: Some(fixtures.join("drafts/qwen-untied-q2")),
        dtype: flags.dtype,
    };
    let mut models = vec![speed(flags, &carried)?];
    let mut not_measured = Vec::new();
    let dtype = match flags.target_dtype {
        Some(dtype) => dtype,
        None => speed::published_dtype(&flags.device.open()?, flags.dtype)?,
    };
    for (idx, target) in flags.targets.iter().enumerate() {
        let measured = Measured {
            target: target.clone(),
            draft: flags.drafts.get(idx).cloned(),
            dtype,
        };
        match speed(flags, &measured) {
            Ok(report) => models.push(report),
            Err(error) => {
                let reason = in_one_line(&*error);
                println!("{}: not measured: {reason}", measured.name());
                not_measured.push(NotMeasured {
                    target: measured.name(),
                    reason,
                });
            }
        }
    }
    Ok((models, not_measured))
}

fn case_reports(flags: &Flags, cases: &[Case]) -> Result<Vec<CaseReport>, BoxError> {
    let n_cases = cases.len();
    let reports = cases.iter().enumerate().map(|(idx, of)| {
        let report = case(flags, of)?;
        println!(
            "case {} of {n_cases}: {}, plain {}, drafted {}, {:.1} s",
            idx + 1,
            report.name,
            report.plain,
            report.drafted,
            report.seconds
        );
        Ok(report)
    });
    reports.collect()
}

fn pair_reports(flags: &Flags) -> Result<Vec<PairReport>, BoxError> {
    let reports = reference::DRAFTERS.into_iter().map(|drafter| {
        let report = pair(flags, drafter)?;
        println!(
            "{}: greedy {}, sampled {}",
            report.name, report.greedy, report.sampled
        );
        Ok(report)
    });
    reports.collect()
}

fn main() -> Result<(), BoxError> {
    let flags = Flags::parse();
    if flags.drafts.len() > flags.targets.len() {
        return Err("there are more --draft than --target flags".into());
    }
    let device = flags.device.open()?;
    fs::create_dir_all(&flags.out)?;
    let bandwidth = match flags.bandwidth {
        Some(gigabytes) => Bandwidth::Given(1e9 * gigabytes),
        None => Bandwidth::Copied(bandwidth::measured(&device)?),
    };
    let all = Case::all();
    let step = all.len().div_ceil(flags.cases.max(1));
    let cases: Vec<Case> = all.into_iter().step_by(step).collect();
    let (case_reports, pairs) = (case_reports(&flags, &cases)?, pair_reports(&flags)?);
    let (models, not_measured) = speeds(&flags)?;
    let report = Report {
        device: flags.device.to_string(),
        dtype: flags.dtype.to_string(),
        version: env!("CARGO_PKG_VERSION"),
        cases: case_reports,
        pairs,
        disagreement: disagreement(&flags, &cases, Passes::AsTheyAre)?,
        padded_rows: PADDED_ROWS.get(),
        padded_disagreement: disagreement(&flags, &cases, Passes::Padded).ok(),
        bandwidth,
        models,
        not_measured,
    };
    let json = serde_json::to_string_pretty(&report)?;
    fs::write(flags.out.join("device-check.json"), json)?;
    let page = report::page(&report);
    fs::write(flags.out.join("device-check.md"), &page)?;
    println!("\n{page}");
    if report.is_right() {
        Ok(())
    } else {
        Err("some tokens differ from those of the reference or of the CPU".into())
    }
}
