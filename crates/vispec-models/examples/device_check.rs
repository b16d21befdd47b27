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

#[path = "../tests/reference/mod.rs"]
mod reference;

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use reference::{Case, Decoding, shape};
use serde::Serialize;
use vispec_core::{
    KvCache, NodeId, Prompt, Sampler, TargetLogits, TargetModel, TargetOutput, TokenTree,
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

#[derive(Serialize)]
struct Report {
    device: String,
    dtype: String,
    version: &'static str,
    cases: Vec<CaseReport>,
    disagreement: Disagreement,
    models: Vec<ModelReport>,
}

/// A case of the reference implementation.
#[derive(Serialize)]
struct CaseReport {
    name: String,
    plain_equal: bool,
    drafted_equal: bool,
    tau: f64,
    seconds: f64,
}

/// Rows of trees beside passes over single tokens.
#[derive(Serialize, Default)]
struct Disagreement {
    rows: usize,
    other_picks: usize,
    /// Largest difference of a logit.
    largest: f32,
    /// Gap of the best two logits where the picks differ, at most.
    largest_gap_of_other_picks: f32,
}

#[derive(Serialize)]
struct ModelReport {
    target: String,
    prefill_seconds_per_token: f64,
    /// Nodes, seconds, launches.
    verify: Vec<(usize, f64, Option<usize>)>,
    plain_tokens_per_second: f64,
    drafted: Option<Drafted>,
}

#[derive(Serialize)]
struct Drafted {
    method: String,
    nodes: usize,
    tau: f64,
    tokens_per_second: f64,
    launches_per_cycle: Option<f64>,
    identical: bool,
}

/// Counts launches where there is something to count.
mod launches {
    #[cfg(feature = "cube")]
    mod cube {
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

        pub fn count<R>(work: impl FnOnce() -> R) -> (R, Option<usize>) {
            let count = Arc::new(Count::default());
            let observation = LaunchObservation::new(count.clone());
            let result = work();
            drop(observation);
            // The CPU launches nothing.
            let launched = count.0.load(Ordering::Relaxed);
            (result, (launched > 0).then_some(launched))
        }
    }

    #[cfg(not(feature = "cube"))]
    mod cube {
        pub fn count<R>(work: impl FnOnce() -> R) -> (R, Option<usize>) {
            (work(), None)
        }
    }

    pub use cube::count;
}

fn engine(
    flags: &Flags,
    target: PathBuf,
    draft: Option<PathBuf>,
) -> Result<Engine, Box<dyn Error>> {
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

fn case(flags: &Flags, case: &Case) -> Result<CaseReport, Box<dyn Error>> {
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
        plain_equal: plain.tokens == expected,
        drafted_equal: drafted.tokens == expected,
        tau: drafted.stats.tau(),
        seconds: start.elapsed().as_secs_f64(),
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
) -> Result<Vec<Vec<f32>>, Box<dyn Error>> {
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
fn disagreement(flags: &Flags, cases: &[Case]) -> Result<Disagreement, Box<dyn Error>> {
    let mut found = Disagreement::default();
    for case in cases.iter().take(8) {
        let engine = engine(flags, reference::fixtures().join(&case.model), None)?;
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

fn model(
    flags: &Flags,
    target: PathBuf,
    draft: Option<PathBuf>,
) -> Result<ModelReport, Box<dyn Error>> {
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
        let (output, launched) =
            launches::count(|| engine.target().verify(&chain(&tokens), &mut cache));
        output?.logits.pick(0, &Sampler::Greedy, 0.0)?;
        verify.push((cost.rows, cost.seconds, launched));
    }
    let decoding = Decoding::greedy(flags.new_tokens);
    let tree = shape(3, 8, 30);
    // Once to compile kernels and once for the time.
    let answer = |method| {
        decoding.try_answer(&engine, &prompt, method, tree)?;
        let (answer, launched) =
            launches::count(|| decoding.try_answer(&engine, &prompt, method, tree));
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
                nodes: tree.nodes(),
                tau: drafted.stats.tau(),
                tokens_per_second: drafted.stats.tokens_per_second(),
                launches_per_cycle: launched.map(|launched| launched as f64 / cycles as f64),
                identical: drafted.tokens == plain.tokens,
            })
        }
    };
    Ok(ModelReport {
        target: name,
        prefill_seconds_per_token: costs.prefill,
        verify,
        plain_tokens_per_second: plain.stats.tokens_per_second(),
        drafted,
    })
}

fn page(report: &Report) -> String {
    let mut page = format!(
        "# Check of `{}` in {}, vispec-models {}\n\n",
        report.device, report.dtype, report.version
    );
    let count =
        |equal: fn(&CaseReport) -> bool| report.cases.iter().filter(|case| equal(case)).count();
    let n = report.cases.len();
    let _ = writeln!(
        page,
        "Cases of the reference implementation with its tokens: {} of {n} in plain decoding, {} of {n} drafted, in {:.0} s.\n",
        count(|case| case.plain_equal),
        count(|case| case.drafted_equal),
        report.cases.iter().map(|case| case.seconds).sum::<f64>(),
    );
    let Disagreement {
        rows,
        other_picks,
        largest,
        largest_gap_of_other_picks: gap,
    } = report.disagreement;
    let _ = writeln!(
        page,
        "Rows read one at a time and sixteen at a time: {other_picks} of {rows} pick another token, where the best two logits are at most {gap:.2e} apart; logits differ by at most {largest:.2e}.\n"
    );
    for model in &report.models {
        let _ = writeln!(
            page,
            "## {}\n\nPrefill {:.2} ms a token, plain decoding {:.1} tokens/s.\n",
            model.target,
            1e3 * model.prefill_seconds_per_token,
            model.plain_tokens_per_second
        );
        if let Some(drafted) = &model.drafted {
            let launched = drafted.launches_per_cycle;
            let launched = launched.map_or("-".to_owned(), |launched| format!("{launched:.0}"));
            let _ = writeln!(
                page,
                "With {} and trees of {} nodes {:.1} tokens/s ({:.2} times), tau {:.2}, {launched} launches a cycle, identical: {}.\n",
                drafted.method,
                drafted.nodes,
                drafted.tokens_per_second,
                drafted.tokens_per_second / model.plain_tokens_per_second,
                drafted.tau,
                drafted.identical
            );
        }
        page.push_str("| nodes verified | ms | of one | launches |\n|---|---|---|---|\n");
        for (rows, seconds, launched) in &model.verify {
            let launched = launched.map_or("-".to_owned(), |launched| launched.to_string());
            let _ = writeln!(
                page,
                "| {rows} | {:.2} | {:.2} | {launched} |",
                1e3 * seconds,
                seconds / model.verify[0].1
            );
        }
        page.push('\n');
    }
    page
}

fn main() -> Result<(), Box<dyn Error>> {
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
            if report.plain_equal { "equal" } else { "OTHER" },
            if report.drafted_equal {
                "equal"
            } else {
                "OTHER"
            },
            report.seconds
        );
        reports.push(report);
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
        disagreement: disagreement(&flags, &cases)?,
        models: models
            .into_iter()
            .map(|(target, draft)| model(&flags, target, draft))
            .collect::<Result<_, _>>()?,
    };
    let json = serde_json::to_string_pretty(&report)?;
    fs::write(flags.out.join("device-check.json"), json)?;
    let page = page(&report);
    fs::write(flags.out.join("device-check.md"), &page)?;
    println!("\n{page}");
    let is_right = report
        .cases
        .iter()
        .all(|case| case.plain_equal && case.drafted_equal);
    if is_right {
        Ok(())
    } else {
        Err("some cases have other tokens than the reference".into())
    }
}
