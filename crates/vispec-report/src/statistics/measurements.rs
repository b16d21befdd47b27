//! What is kept of records.

use crate::record::{ArmRecord, PhaseTimes, PromptRecord};

/// What is kept of one record. Times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sample {
    /// Tokens of the prompt that stand for images.
    pub image_tokens: u32,
    /// Cycles of the speculative arm.
    pub cycles: u32,
    /// Draft tokens that the speculative arm emitted.
    pub accepted: u32,
    /// Tokens of the plain answer.
    pub plain_tokens: u32,
    /// Tokens of the speculative answer.
    pub speculative_tokens: u32,
    /// All cycles of the plain arm.
    pub plain_decode_ms: f64,
    /// The plain answer from preprocessing to its last token.
    pub plain_total_ms: f64,
    /// All cycles of the speculative arm.
    pub speculative_decode_ms: f64,
    /// The speculative answer from preprocessing to its last token.
    pub speculative_total_ms: f64,
}

/// Where the arms of a record parted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DivergencePoint {
    /// Place in the answer, counted from 0.
    pub position: u32,
    /// Gap of the plain logits, if known.
    pub logit_gap: Option<f32>,
}

/// Share of the whole time by phase; the shares add up to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PhaseShares {
    /// Image processing, chat template and tokenizer.
    pub preprocess: f64,
    /// Vision tower.
    pub vision: f64,
    /// The target over the prompt.
    pub prefill: f64,
    /// The drafter.
    pub draft: f64,
    /// Verify passes.
    pub verify: f64,
    /// The rest of the cycles.
    pub other: f64,
}

impl PhaseShares {
    /// Names of the phases, in the order of [`values`](Self::values).
    pub const NAMES: [&str; 6] = [
        "preprocess",
        "vision",
        "prefill",
        "draft",
        "verify",
        "other",
    ];

    /// The shares, in the order of an answer.
    #[must_use]
    pub fn values(&self) -> [f64; 6] {
        [
            self.preprocess,
            self.vision,
            self.prefill,
            self.draft,
            self.verify,
            self.other,
        ]
    }

    /// Shares of summed times; all 0 if there is no time.
    #[must_use]
    pub fn of(times: &PhaseTimes) -> Self {
        let parts = [
            times.preprocess,
            times.vision,
            times.prefill,
            times.draft,
            times.verify,
            times.other,
        ];
        let sum: f64 = parts.iter().sum();
        let [preprocess, vision, prefill, draft, verify, other] =
            parts.map(|part| if sum > 0.0 { part / sum } else { 0.0 });
        Self {
            preprocess,
            vision,
            prefill,
            draft,
            verify,
            other,
        }
    }
}

/// What is kept of the records of one cell, or of several that are looked at as one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measurements {
    /// One entry per record.
    pub samples: Vec<Sample>,
    /// Cycles of the speculative arm by number of accepted tokens.
    pub accepted_histogram: Vec<u64>,
    /// Nodes verified in all cycles of the speculative arm, roots included.
    pub nodes: u64,
    /// Summed times of the plain arm in milliseconds.
    pub plain_ms: PhaseTimes,
    /// Summed times of the speculative arm in milliseconds.
    pub speculative_ms: PhaseTimes,
    /// Cycles of the plain arm.
    pub plain_cycles: u64,
    /// One entry per record whose arms differ.
    pub divergences: Vec<DivergencePoint>,
    /// Largest resident set that a record names, in bytes.
    pub peak_rss_bytes: u64,
}

impl Measurements {
    /// Adds a record.
    pub fn add(&mut self, record: &PromptRecord) {
        let (plain, speculative) = (&record.plain, &record.speculative);
        for &accepted in &speculative.accepted_per_cycle {
            let accepted = accepted as usize;
            if self.accepted_histogram.len() <= accepted {
                self.accepted_histogram.resize(accepted + 1, 0);
            }
            self.accepted_histogram[accepted] += 1;
        }
        self.nodes += sum(&speculative.nodes_per_cycle);
        self.plain_cycles += plain.accepted_per_cycle.len() as u64;
        add_times(&mut self.plain_ms, &plain.times_ms);
        add_times(&mut self.speculative_ms, &speculative.times_ms);
        self.peak_rss_bytes = self.peak_rss_bytes.max(record.peak_rss_bytes.unwrap_or(0));
        if let Some(divergence) = record.first_divergence {
            self.divergences.push(DivergencePoint {
                position: divergence.position,
                logit_gap: divergence.logit_gap,
            });
        }
        self.samples.push(Sample {
            image_tokens: record.image_tokens,
            cycles: speculative.accepted_per_cycle.len() as u32,
            accepted: sum(&speculative.accepted_per_cycle) as u32,
            plain_tokens: new_tokens(plain),
            speculative_tokens: new_tokens(speculative),
            plain_decode_ms: plain.times_ms.decode,
            plain_total_ms: plain.times_ms.total(),
            speculative_decode_ms: speculative.times_ms.decode,
            speculative_total_ms: speculative.times_ms.total(),
        });
    }

    /// Adds the records of another set.
    pub fn merge(&mut self, other: &Self) {
        let longest = self
            .accepted_histogram
            .len()
            .max(other.accepted_histogram.len());
        self.accepted_histogram.resize(longest, 0);
        for (sum, count) in self
            .accepted_histogram
            .iter_mut()
            .zip(&other.accepted_histogram)
        {
            *sum += count;
        }
        self.samples.extend_from_slice(&other.samples);
        self.nodes += other.nodes;
        add_times(&mut self.plain_ms, &other.plain_ms);
        add_times(&mut self.speculative_ms, &other.speculative_ms);
        self.plain_cycles += other.plain_cycles;
        self.divergences.extend_from_slice(&other.divergences);
        self.peak_rss_bytes = self.peak_rss_bytes.max(other.peak_rss_bytes);
    }

    /// Cycles of the speculative arm.
    #[must_use]
    pub fn cycles(&self) -> u64 {
        self.accepted_histogram.iter().sum()
    }

    /// Nodes per cycle, the root included; absent without a cycle.
    #[must_use]
    pub fn mean_nodes(&self) -> Option<f64> {
        let cycles = self.cycles();
        (cycles > 0).then(|| self.nodes as f64 / cycles as f64)
    }

    /// Share of records whose arms gave the same tokens; absent without a record.
    #[must_use]
    pub fn exact_share(&self) -> Option<f64> {
        let records = self.samples.len();
        (records > 0).then(|| 1.0 - self.divergences.len() as f64 / records as f64)
    }

    /// One number of each record, sorted, for quantiles.
    #[must_use]
    pub fn sorted(&self, number: impl Fn(&Sample) -> f64) -> Vec<f64> {
        let mut values: Vec<f64> = self.samples.iter().map(number).collect();
        values.sort_by(f64::total_cmp);
        values
    }
}

fn sum(counts: &[u32]) -> u64 {
    counts.iter().map(|&count| u64::from(count)).sum()
}

fn new_tokens(arm: &ArmRecord) -> u32 {
    u32::try_from(arm.token_ids.len()).unwrap_or(u32::MAX)
}

fn add_times(sum: &mut PhaseTimes, times: &PhaseTimes) {
    sum.preprocess += times.preprocess;
    sum.vision += times.vision;
    sum.prefill += times.prefill;
    sum.draft += times.draft;
    sum.verify += times.verify;
    sum.other += times.other;
    sum.decode += times.decode;
}
