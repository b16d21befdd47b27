//! Numbers that are kept of records.

use super::{Blocks, Divergences, ImageBins, Subset};
use crate::random::hashed;
use crate::record::{ArmRecord, PhaseTimes, PromptRecord};

/// The numbers of one record from which figures are computed. Times are in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sample {
    /// Number of prompt tokens that stand for images.
    pub image_tokens: u32,
    /// Number of cycles of the speculative arm.
    pub cycles: u32,
    /// Number of draft tokens that the speculative arm emitted.
    pub accepted: u32,
    /// Number of tokens of the plain answer.
    pub plain_tokens: u32,
    /// Number of tokens of the speculative answer.
    pub speculative_tokens: u32,
    /// Time of all cycles of the plain arm.
    pub plain_decode_ms: f64,
    /// Time of the plain answer, from preprocessing to its last token.
    pub plain_total_ms: f64,
    /// Time of all cycles of the speculative arm.
    pub speculative_decode_ms: f64,
    /// Time of the speculative answer, from preprocessing to its last token.
    pub speculative_total_ms: f64,
}

impl Sample {
    /// Extracts the numbers of a record.
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

/// Numbers kept of the records of one cell, or of several cells that are evaluated together. These
/// are sums and bounded subsets of values, so that memory does not grow with the number of records.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measurements {
    /// All records, for figures and their intervals.
    pub blocks: Blocks,
    /// All records by number of image tokens.
    pub image_bins: ImageBins,
    /// Times of whole plain answers in milliseconds.
    pub plain_total_ms: Subset,
    /// Times of whole speculative answers in milliseconds.
    pub speculative_total_ms: Subset,
    /// Number of tokens of all speculative answers.
    pub speculative_tokens: u64,
    /// Number of cycles of the speculative arm by number of accepted tokens.
    pub accepted_histogram: Vec<u64>,
    /// Number of nodes verified in all cycles of the speculative arm, including roots.
    pub nodes: u64,
    /// Summed times of the plain arm in milliseconds.
    pub plain_ms: PhaseTimes,
    /// Summed times of the speculative arm in milliseconds.
    pub speculative_ms: PhaseTimes,
    /// Number of cycles of the plain arm.
    pub plain_cycles: u64,
    /// Records whose arms differ.
    pub divergences: Divergences,
    /// Largest resident set of any record, in bytes.
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

    /// Returns the number of records.
    #[must_use]
    pub fn records(&self) -> usize {
        self.blocks.records()
    }

    /// Returns the number of cycles of the speculative arm.
    #[must_use]
    pub fn cycles(&self) -> u64 {
        self.accepted_histogram.iter().sum()
    }

    /// Returns the mean number of nodes per cycle, including the root; `None` without a cycle.
    #[must_use]
    pub fn mean_nodes(&self) -> Option<f64> {
        let cycles = self.cycles();
        (cycles > 0).then(|| self.nodes as f64 / cycles as f64)
    }

    /// Returns the share of records whose arms produced the same tokens; `None` without a record.
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
