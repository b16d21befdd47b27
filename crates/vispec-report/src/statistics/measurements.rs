//! What is kept of records.

use super::{Blocks, Divergences, ImageBins, Subset};
use crate::random::hashed;
use crate::record::{ArmRecord, PhaseTimes, PromptRecord};

/// The numbers of one record that figures are made of. Times are in milliseconds.
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

impl Sample {
    /// Takes the numbers from a record.
    #[must_use]
    pub fn of(record: &PromptRecord) -> Self {
        let (plain, speculative) = (&record.plain, &record.speculative);
        Self {
            image_tokens: record.image_tokens,
            cycles: count(speculative.accepted_per_cycle.len()),
            accepted: speculative.accepted_per_cycle.iter().sum(),
            plain_tokens: new_tokens(plain),
            speculative_tokens: new_tokens(speculative),
            plain_decode_ms: plain.times_ms.decode,
            plain_total_ms: plain.times_ms.total(),
            speculative_decode_ms: speculative.times_ms.decode,
            speculative_total_ms: speculative.times_ms.total(),
        }
    }
}

/// What is kept of the records of one cell, or of several that are looked at as one: sums, and
/// bounded choices of values, so that memory does not grow with the number of records.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measurements {
    /// All records, for figures and their intervals.
    pub blocks: Blocks,
    /// The same by number of image tokens.
    pub image_bins: ImageBins,
    /// Times of whole plain answers in milliseconds.
    pub plain_total_ms: Subset,
    /// Times of whole speculative answers in milliseconds.
    pub speculative_total_ms: Subset,
    /// Tokens of all speculative answers.
    pub speculative_tokens: u64,
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
    /// Records whose arms differ.
    pub divergences: Divergences,
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
        let key = hashed(record.prompt_id.as_bytes(), record.seed);
        if let Some(divergence) = &record.first_divergence {
            self.divergences.add(key, divergence);
        }
        let sample = Sample::of(record);
        self.blocks.add(&sample);
        self.image_bins.add(&sample);
        self.plain_total_ms.add(key, sample.plain_total_ms);
        self.speculative_total_ms
            .add(key, sample.speculative_total_ms);
        self.speculative_tokens += u64::from(sample.speculative_tokens);
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
        self.blocks.merge(&other.blocks);
        self.image_bins.merge(&other.image_bins);
        self.plain_total_ms.merge(&other.plain_total_ms);
        self.speculative_total_ms.merge(&other.speculative_total_ms);
        self.speculative_tokens += other.speculative_tokens;
        self.nodes += other.nodes;
        add_times(&mut self.plain_ms, &other.plain_ms);
        add_times(&mut self.speculative_ms, &other.speculative_ms);
        self.plain_cycles += other.plain_cycles;
        self.divergences.merge(&other.divergences);
        self.peak_rss_bytes = self.peak_rss_bytes.max(other.peak_rss_bytes);
    }

    /// Number of records.
    #[must_use]
    pub fn records(&self) -> usize {
        self.blocks.records()
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
        let records = self.records();
        (records > 0).then(|| 1.0 - self.divergences.count() as f64 / records as f64)
    }
}

fn sum(counts: &[u32]) -> u64 {
    counts.iter().map(|&count| u64::from(count)).sum()
}

fn new_tokens(arm: &ArmRecord) -> u32 {
    count(arm.token_ids.len())
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
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
