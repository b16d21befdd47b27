//! Checks a device: whether it answers as the reference does, how often trees and single tokens
//! disagree, what passes cost and how many launches they take. `cargo xtask gpu-check` builds and runs
//! it.
//!
//! Writes `device-check.json` and `device-check.md` to a folder; nothing is downloaded.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a check that cannot run may panic, and says what it does"
)]

#[path = "../../tests/reference/mod.rs"]
mod reference;
mod report;

use std::fs;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use reference::{Case, Decoding, shape};
use report::{CaseReport, Disagreement, Drafted, ModelReport, PairReport, Report, Tokens};
use vispec_core::{
    BoxError, KvCache, NodeId, Prompt, Sampler, TargetLogits, TargetModel, TargetOutput, TokenTree,
    measure_target_costs,
};
use vispec_models::{
    DeviceSpec, DraftVocab, DtypeChoice, EncodedPrompt, Engine, EngineOptions, KvPrecision,
    LayerIds, Method,
};
use vispec_processor::Messages;

#[derive(Parser)]
struct Flags {
    /// The device
    #[arg(long)]
    device: DeviceSpec,
    /// Element type of the models
    #[arg(long, default_value = "f32")]
    dtype: DtypeChoice,
    /// Number of the reference's cases, evenly spread
    #[arg(long, default_value_t = 50)]
    cases: usize,
    /// A target to measure besides the tiny one, such as a random checkpoint
    #[arg(long)]
    target: Option<PathBuf>,
    /// A draft for it
    #[arg(long)]
    draft: Option<PathBuf>,
    /// Tokens of measured answers
    #[arg(long, default_value_t = 64)]
    new_tokens: usize,
    /// Folder for the results
    #[arg(long)]
    out: PathBuf,
}

/// Counts launches on devices that CubeCL compiles for; others have none to count.
#[cfg(feature = "cube")]
fn launches<R>(work: impl FnOnce() -> R) -> (R, Option<usize>) {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use burn_cubecl::cubecl::logging::{LaunchObservation, LaunchObserver};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl LaunchObserver for Count {
        fn launched(&self, _kernel: &'static str) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    let count = Arc::new(Count::default());
    let observation = LaunchObservation::new(count.clone());
    let result = work();
    drop(observation);
    // Tensors of the CPU launch nothing.
    let launched = count.0.load(Ordering::Relaxed);
    (result, (launched > 0).then_some(launched))
}

#[cfg(not(feature = "cube"))]
fn launches<R>(work: impl FnOnce() -> R) -> (R, Option<usize>) {
    (work(), None)
}

/// Rows of padded passes: enough for a tree of 30.
const PADDED_ROWS: NonZeroUsize = NonZeroUsize::new(32).unwrap();

/// How the passes of a target are made.
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

fn engine(flags: &Flags, target: PathBuf, draft: Option<PathBuf>) -> Result<Engine, BoxError> {
    Ok(Engine::load(&EngineOptions {
        target,
        draft,
        draft_vocab: DraftVocab::Auto,
        draft_layer_ids: LayerIds::Auto,
        device: flags.device.open()?,
        dtype: flags.dtype,
        kv: KvPrecision::Auto,
    })?)
}

fn case(flags: &Flags, case: &Case) -> Result<CaseReport, BoxError> {
    let fixtures = reference::fixtures();
    let engine = engine(
        flags,
        fixtures.join(&case.model),
        Some(fixtures.join(&case.draft)),
    )?;
    let prompt = case.encode(&engine);
    let settings = &case.settings;
    let expected = &case.ar_ids[..case.ar_ids.len().min(settings.max_new_tokens)];
    let tree = shape(settings.depth, settings.top_k, settings.total_token);
    let decoding = Decoding::greedy(settings.max_new_tokens);
    let start = Instant::now();
    let plain = decoding.try_answer(&engine, &prompt, Method::None, tree)?;
    let drafted = decoding.try_answer(&engine, &prompt, case.method.parse()?, tree)?;
    Ok(CaseReport {
        name: case.name(),
        plain: Tokens::compare(&plain.tokens, expected),
        drafted: Tokens::compare(&drafted.tokens, expected),
        tau: drafted.stats.tau(),
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// Tokens of a drafter on the device, greedy and at temperature 1, beside those of plain decoding on
/// the CPU.
fn pair(
    flags: &Flags,
    (target, draft, method): (&str, Option<&str>, Method),
) -> Result<PairReport, BoxError> {
    let dir = |draft: &str| reference::fixtures().join("drafts").join(draft);
    let models = reference::fixtures().join("models");
    let engine = engine(flags, models.join(target), draft.map(dir))?;
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
        let expected = decoding.try_answer(&host, &on_host, Method::None, tree)?;
        let found = decoding.try_answer(&engine, &prompt, method, tree)?;
        Ok(Tokens::compare(&found.tokens, &expected.tokens))
    };
    Ok(PairReport {
        name: format!("{target}, {}", draft.unwrap_or("prompt lookup")),
        greedy: compare(Sampler::Greedy)?,
        sampled: compare(Sampler::new(1.0, None, None)?)?,
    })
}

/// A chain of the tokens, the first as its root.
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

/// The best token, and by how much.
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

/// Reads answers of the reference token by token and sixteen at a time.
fn disagreement(flags: &Flags, cases: &[Case], passes: Passes) -> Result<Disagreement, BoxError> {
    let mut found = Disagreement::default();
    for case in cases.iter().take(8) {
        let engine = engine(flags, reference::fixtures().join(&case.model), None)?;
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

/// What a pass over one token takes, at best.
fn seconds_of_one(engine: &Engine, prompt: &EncodedPrompt) -> Result<f64, BoxError> {
    let target = engine.target();
    let mut cache = target.new_cache()?;
    target.prefill(prompt, &mut cache)?;
    let mut best = f64::INFINITY;
    for _ in 0..10 {
        let start = Instant::now();
        let mut output = target.verify(&TokenTree::new(0), &mut cache)?;
        output.logits.pick(0, &Sampler::Greedy, 0.0)?;
        best = best.min(start.elapsed().as_secs_f64());
        cache.truncate(prompt.token_ids().len());
    }
    Ok(best)
}

fn model(flags: &Flags, target: PathBuf, draft: Option<PathBuf>) -> Result<ModelReport, BoxError> {
    let name = target
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    println!("measuring {name}");
    let engine = engine(flags, target, draft)?;
    let question = "Describe how a lock and key work, from the beginning, in detail.";
    let messages = Messages::from_prompt(None, question, 0);
    let (prompt, _) = engine.encode(&messages, &[])?;
    let costs = measure_target_costs(engine.target(), &prompt)?;
    let mut verify = Vec::new();
    for cost in &costs.verify {
        let mut cache = engine.target().new_cache()?;
        engine.target().prefill(&prompt, &mut cache)?;
        cache.truncate(prompt.token_ids().len());
        let tokens: Vec<u32> = (0..).take(cost.rows).collect();
        let (output, launched) = launches(|| engine.target().verify(&chain(&tokens), &mut cache));
        output?.logits.pick(0, &Sampler::Greedy, 0.0)?;
        verify.push((cost.rows, cost.seconds, launched));
    }
    let decoding = Decoding::greedy(flags.new_tokens);
    let tree = shape(3, 8, 30);
    // Once to compile kernels and once for the time.
    let answer = |method| {
        decoding.try_answer(&engine, &prompt, method, tree)?;
        let (answer, launched) = launches(|| decoding.try_answer(&engine, &prompt, method, tree));
        answer.map(|answer| (answer, launched))
    };
    let (plain, _) = answer(Method::None)?;
    let method = engine.default_method();
    let drafted = match method {
        Method::None => None,
        method => {
            let (drafted, launched) = answer(method)?;
            let cycles = drafted.stats.accepted_per_cycle().len().max(1);
            Some(Drafted {
                method: method.to_string(),
                nodes: tree.max_nodes(),
                tau: drafted.stats.tau(),
                tokens_per_second: drafted.stats.decode_tokens_per_second(),
                launches_per_cycle: launched.map(|launched| launched as f64 / cycles as f64),
                beside_plain: Tokens::compare(&drafted.tokens, &plain.tokens),
            })
        }
    };
    let padded = match Passes::Padded.of(engine) {
        Ok(engine) => Some(seconds_of_one(&engine, &prompt)?),
        // On the CPU there is nothing to pad.
        Err(_) => None,
    };
    Ok(ModelReport {
        target: name,
        prefill_seconds_per_token: costs.prefill,
        verify,
        padded_seconds: padded,
        plain_tokens_per_second: plain.stats.decode_tokens_per_second(),
        drafted,
    })
}

fn main() -> Result<(), BoxError> {
    let flags = Flags::parse();
    flags.device.open()?;
    fs::create_dir_all(&flags.out)?;
    let all = Case::all();
    let step = all.len().div_ceil(flags.cases.max(1));
    let cases: Vec<Case> = all.into_iter().step_by(step).collect();
    let mut reports = Vec::new();
    for (idx, of) in cases.iter().enumerate() {
        let report = case(&flags, of)?;
        println!(
            "case {} of {}: {}, plain {}, drafted {}, {:.1} s",
            idx + 1,
            cases.len(),
            report.name,
            report.plain,
            report.drafted,
            report.seconds
        );
        reports.push(report);
    }
    let mut pairs = Vec::new();
    for drafter in reference::DRAFTERS {
        let report = pair(&flags, drafter)?;
        println!(
            "{}: greedy {}, sampled {}",
            report.name, report.greedy, report.sampled
        );
        pairs.push(report);
    }
    let fixtures = reference::fixtures();
    let mut models = vec![(
        fixtures.join("models/qwen-untied"),
        Some(fixtures.join("drafts/qwen-untied-q2")),
    )];
    models.extend(
        flags
            .target
            .clone()
            .map(|target| (target, flags.draft.clone())),
    );
    let report = Report {
        device: flags.device.to_string(),
        dtype: format!("{:?}", flags.dtype).to_lowercase(),
        version: env!("CARGO_PKG_VERSION"),
        cases: reports,
        pairs,
        disagreement: disagreement(&flags, &cases, Passes::AsTheyAre)?,
        padded_rows: PADDED_ROWS.get(),
        padded_disagreement: disagreement(&flags, &cases, Passes::Padded).ok(),
        models: models
            .into_iter()
            .map(|(target, draft)| model(&flags, target, draft))
            .collect::<Result<_, _>>()?,
    };
    let json = serde_json::to_string_pretty(&report)?;
    fs::write(flags.out.join("device-check.json"), json)?;
    let page = report::page(&report);
    fs::write(flags.out.join("device-check.md"), &page)?;
    println!("\n{page}");
    let of_cases = report
        .cases
        .iter()
        .flat_map(|case| [case.plain, case.drafted]);
    let of_pairs = report
        .pairs
        .iter()
        .flat_map(|pair| [pair.greedy, pair.sampled]);
    let is_right = of_cases
        .chain(of_pairs)
        .all(|tokens| tokens == Tokens::Equal);
    if is_right {
        Ok(())
    } else {
        Err("some tokens are not those of the reference, or of the CPU".into())
    }
}
