//! Output of `generate --json`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use vispec_core::{Idle, Speculation, SpeculationReason, SpeculationSummary};
use vispec_models::Engine;
use vispec_processor::SpecialText;

use crate::failure::Failure;
use crate::memory::peak_rss_bytes;
use crate::run::{OuterTimes, Run};

/// One generation.
#[derive(Debug, Serialize)]
pub struct Record {
    /// The answer, without special tokens.
    pub text: String,
    /// The answer's tokens, up to and including the end-of-sequence token.
    pub token_ids: Vec<u32>,
    /// `stop`, `length` or `context`.
    pub finish_reason: String,
    /// Number of prompt tokens, image places included.
    pub prompt_tokens: usize,
    /// Number of answer tokens.
    pub new_tokens: usize,
    /// Drafting method.
    pub method: &'static str,
    /// Form in which the draft receives images: `compressed`, `features`, `placeholders` or
    /// `nothing`; null without a network.
    pub draft_images: Option<&'static str>,
    /// Accepted draft tokens of each cycle, bonus excluded.
    pub accepted_per_cycle: Vec<u32>,
    /// Nodes verified in each cycle, the root included.
    pub nodes_per_cycle: Vec<u32>,
    /// Number of cycles that verified only the root, by reason.
    pub idle_cycles: BTreeMap<&'static str, u64>,
    /// Mean of `accepted_per_cycle`.
    pub tau: f64,
    /// `tau` + 1
    pub tokens_per_cycle: f64,
    /// Summary of drafting.
    pub speculation: Drafted,
    /// Times of the phases.
    pub timings_ms: Timings,
    /// New tokens divided by decode time.
    pub tokens_per_second: f64,
    /// Peak resident set size of the process so far.
    pub peak_rss_bytes: Option<u64>,
}

/// Summary of drafting.
#[derive(Debug, Serialize)]
pub struct Drafted {
    /// Requested speculation: `off`, `on` or `required`.
    pub wanted: &'static str,
    /// Readable text in lines.
    pub summary: String,
    /// Speed-up over plain decoding without prefill, estimated from measured times; `None` if no
    /// times are known.
    pub gain: Option<f64>,
    /// Reasons why drafting was off or changed: names of `SpeculationReason`.
    pub reasons: Vec<&'static str>,
}

impl Drafted {
    /// Describes the drafting of a run with the requested speculation. There is no `summary` for
    /// plain decoding, or if nothing was decoded.
    #[must_use]
    pub fn new(
        wanted: Speculation,
        summary: Option<SpeculationSummary>,
        reasons: &[SpeculationReason],
    ) -> Self {
        Self {
            wanted: wanted.as_str(),
            summary: speculation_lines(summary.as_ref(), reasons).join("\n"),
            gain: summary.and_then(|summary| summary.gain),
            reasons: reasons.iter().map(|reason| reason.as_str()).collect(),
        }
    }
}

/// Returns readable lines about drafting and the reasons why it was off or changed.
#[must_use]
pub fn speculation_lines(
    summary: Option<&SpeculationSummary>,
    reasons: &[SpeculationReason],
) -> Vec<String> {
    // The summary already contains the reasons from the cycles.
    let in_summary = |reason: &&SpeculationReason| {
        summary.is_some() && matches!(reason, SpeculationReason::Idle(_))
    };
    let others = reasons.iter().filter(|reason| !in_summary(reason));
    let lines = others.map(ToString::to_string);
    lines.chain(summary.map(ToString::to_string)).collect()
}

/// Milliseconds of each phase.
#[derive(Debug, Serialize)]
pub struct Timings {
    /// Reading checkpoints.
    pub load: f64,
    /// Image processing, chat template and tokenizer.
    pub preprocess: f64,
    /// Vision tower.
    pub vision: f64,
    /// Passes of the target over the prompt.
    pub prefill: f64,
    /// Drafting.
    pub draft: f64,
    /// Passes of the target over draft trees.
    pub verify: f64,
    /// Everything after the prefill.
    pub decode: f64,
    /// All phases except `load`.
    pub total: f64,
}

/// A generation and, if requested, plain decoding of the same prompt.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The requested generation.
    #[serde(flatten)]
    pub record: Record,
    /// Plain decoding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Record>,
    /// Whether both have the same tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identical: Option<bool>,
    /// Tokens per second, relative to the baseline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speedup: Option<f64>,
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

impl Record {
    /// Creates the record of `run`.
    ///
    /// # Errors
    /// If the tokenizer cannot decode the answer.
    pub fn new(
        engine: &Engine,
        run: &Run,
        times: &OuterTimes,
        speculation: Drafted,
    ) -> Result<Self, Failure> {
        let stats = &run.generation.stats;
        let draft = engine.draft_of(run.method);
        let encode = times.encode.preprocess + times.encode.vision;
        Ok(Self {
            text: engine
                .processor()
                .tokenizer()
                .decode(&run.generation.tokens, SpecialText::Skip)?,
            token_ids: run.generation.tokens.clone(),
            finish_reason: run.generation.finish_reason.as_str().to_owned(),
            prompt_tokens: stats.prompt_tokens(),
            new_tokens: stats.new_tokens(),
            method: run.method.as_str(),
            draft_images: draft.map(|draft| draft.images().as_str()),
            accepted_per_cycle: stats.accepted_per_cycle().to_vec(),
            nodes_per_cycle: stats.nodes_per_cycle().to_vec(),
            idle_cycles: Idle::ALL
                .into_iter()
                .map(|reason| (reason.as_str(), stats.idle_cycles(reason)))
                .filter(|&(_, count)| count > 0)
                .collect(),
            tau: stats.tau(),
            tokens_per_cycle: stats.tokens_per_cycle(),
            speculation,
            timings_ms: Timings {
                load: ms(times.load),
                preprocess: ms(times.encode.preprocess),
                vision: ms(times.encode.vision),
                prefill: ms(stats.prefill_time()),
                draft: ms(stats.draft_time()),
                verify: ms(stats.verify_time()),
                decode: ms(stats.decode_time()),
                total: ms(encode + run.elapsed),
            },
            tokens_per_second: stats.decode_tokens_per_second(),
            peak_rss_bytes: peak_rss_bytes(),
        })
    }
}

impl Report {
    /// Creates a report from a record and its baseline, if there is one.
    #[must_use]
    pub fn new(record: Record, baseline: Option<Record>) -> Self {
        let identical = baseline
            .as_ref()
            .map(|plain| plain.token_ids == record.token_ids);
        let speedup = baseline
            .as_ref()
            .filter(|plain| plain.tokens_per_second > 0.0)
            .map(|plain| record.tokens_per_second / plain.tokens_per_second);
        Self {
            record,
            baseline,
            identical,
            speedup,
        }
    }
}
