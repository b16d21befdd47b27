//! Means, ratios and their bootstrap intervals.

use rayon::prelude::*;

use super::blocks::{N_COLUMNS, Row};
use super::{Blocks, Sample, quantile};
use crate::random::SplitMix64;

/// Number of bootstrap resamples of an interval.
pub(crate) const RESAMPLES: u64 = 1000;

/// A figure with its 95 % interval.
///
/// Intervals are percentiles of a paired bootstrap with a fixed seed and `RESAMPLES` resamples.
/// Each resample draws as many [`Blocks`] as there are, with replacement, keeping both arms of a
/// record together. Without records, all three values are NaN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimate {
    /// The figure of all records.
    pub value: f64,
    /// The 2.5 % quantile over resamples.
    pub low: f64,
    /// The 97.5 % quantile over resamples.
    pub high: f64,
}

/// Tokens per second of the speculative arm divided by those of the plain arm, in two versions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SpeedUp {
    /// All tokens divided by all time in each arm, then the ratio: long answers weigh more.
    pub pooled: Estimate,
    /// The mean of the ratios of records: each prompt has the same weight.
    pub sample_mean: Estimate,
}

/// Figures of a set of records.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Estimates {
    /// Number of records.
    pub records: usize,
    /// Accepted draft tokens per cycle, without bonus tokens, over all cycles.
    pub tau: Estimate,
    /// The mean of the tau of each record.
    pub tau_sample_mean: Estimate,
    /// Speed-up of the cycles only.
    pub decode: SpeedUp,
    /// Speed-up of whole answers, including preprocessing, vision tower and prefill.
    pub end_to_end: SpeedUp,
    /// Speed-up of whole answers as computed by the reference: the mean speed of records in one arm
    /// divided by the mean speed in the other.
    pub ratio_of_mean_speeds: Estimate,
    /// Tokens per second of the plain arm's cycles.
    pub plain_tokens_per_second: Estimate,
    /// Tokens per second of the speculative arm's cycles.
    pub speculative_tokens_per_second: Estimate,
    /// Tokens per second of the speculative arm, whole answers.
    pub end_to_end_tokens_per_second: Estimate,
}

const N_FIGURES: usize = 10;
/// Index of tau among the figures.
const TAU: usize = 0;

impl Estimates {
    /// Computes all figures.
    #[must_use]
    pub fn of(blocks: &Blocks) -> Self {
        let values = figures(blocks.totals());
        let resampled = resampled_figures(blocks);
        let estimate = |figure: usize| {
            let resampled = resampled.iter().map(|figures| figures[figure]);
            Estimate::of(values[figure], resampled)
        };
        Self {
            records: blocks.records(),
            tau: estimate(TAU),
            tau_sample_mean: estimate(1),
            decode: SpeedUp {
                pooled: estimate(2),
                sample_mean: estimate(3),
            },
            end_to_end: SpeedUp {
                pooled: estimate(4),
                sample_mean: estimate(5),
            },
            ratio_of_mean_speeds: estimate(6),
            plain_tokens_per_second: estimate(7),
            speculative_tokens_per_second: estimate(8),
            end_to_end_tokens_per_second: estimate(9),
        }
    }
}

impl Estimate {
    /// Computes the interval of a figure from its values in the resamples.
    fn of(value: f64, resampled: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = resampled.filter(|value| value.is_finite()).collect();
        sorted.sort_by(f64::total_cmp);
        Self {
            value,
            low: quantile(&sorted, 0.025).unwrap_or(f64::NAN),
            high: quantile(&sorted, 0.975).unwrap_or(f64::NAN),
        }
    }
}

/// Returns the increase of tau in `samples` over `others`, which are records of the same prompts in
/// the same order.
///
/// Both records of a prompt are resampled together, so that variation common to both does not widen
/// the interval. Returns `None` if the prompts or their plain answers differ.
#[must_use]
pub fn tau_difference(samples: &[Sample], others: &[Sample]) -> Option<Estimate> {
    let prompt = |sample: &Sample| (sample.image_tokens, sample.plain_tokens);
    if !samples.iter().map(prompt).eq(others.iter().map(prompt)) {
        return None;
    }
    let (blocks, others): (Blocks, Blocks) = (samples.iter().collect(), others.iter().collect());
    let tau = |blocks: &Blocks| figures(blocks.totals())[TAU];
    // Resamples of equal numbers of blocks draw the same indices.
    let pairs = resampled_figures(&blocks)
        .into_iter()
        .zip(resampled_figures(&others));
    let differences = pairs.map(|(figures, others)| figures[TAU] - others[TAU]);
    Some(Estimate::of(tau(&blocks) - tau(&others), differences))
}

/// Returns the figures of each resample; empty without records.
fn resampled_figures(blocks: &Blocks) -> Vec<[f64; N_FIGURES]> {
    let rows = blocks.rows();
    if rows.is_empty() {
        return Vec::new();
    }
    (0..RESAMPLES)
        .into_par_iter()
        .map(|resample| figures(&resample_sums(rows, resample)))
        .collect()
}

/// Returns the sums over blocks drawn with replacement. Each resample has its own generator, so
/// that intervals do not depend on threads.
fn resample_sums(rows: &[Row], resample: u64) -> [f64; N_COLUMNS] {
    let mut random = SplitMix64::new(resample.wrapping_mul(0xd134_2543_de82_ef95));
    let bound = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let mut sums = [0.0; N_COLUMNS];
    for _ in 0..bound {
        let row = &rows[random.below(bound) as usize];
        for (sum, &number) in sums.iter_mut().zip(&row.0) {
            *sum += f64::from(number);
        }
    }
    sums
}

/// Returns the figures, in the order of [`Estimates`]; NaN if a divisor is zero.
fn figures(sums: &[f64; N_COLUMNS]) -> [f64; N_FIGURES] {
    let [
        accepted,
        cycles,
        own_tau,
        with_cycles,
        plain_tokens,
        plain_decode_s,
        plain_total_s,
        tokens,
        decode_s,
        total_s,
        decode_ratio,
        with_decode,
        total_ratio,
        with_total,
        plain_speed,
        speed,
    ] = *sums;
    let plain_decode_speed = plain_tokens / plain_decode_s;
    let decode_speed = tokens / decode_s;
    let total_speed = tokens / total_s;
    [
        accepted / cycles,
        own_tau / with_cycles,
        decode_speed / plain_decode_speed,
        decode_ratio / with_decode,
        total_speed / (plain_tokens / plain_total_s),
        total_ratio / with_total,
        speed / plain_speed,
        plain_decode_speed,
        decode_speed,
        total_speed,
    ]
}
