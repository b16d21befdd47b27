//! Sampling from a row of logits on the host: the reference for implementations on a device.

mod adjust;
mod foresee;
mod keep;
mod known;
mod row;
mod uniform;

pub(crate) use adjust::Said;
pub use adjust::{LogitAdjustments, Withheld};
pub(crate) use foresee::foresee;
pub use known::{KnownPick, KnownPicks};
pub(crate) use row::{BLOCK, BlockMaxima, Weights, row_max};
pub use uniform::{PositionUniforms, UniformStream};

use std::cell::RefCell;
use std::num::NonZeroUsize;

use crate::{ConfigError, LogitsError, TokenId};
use keep::{Kept, keep};

/// Sampling is greedy at or below this temperature, as in upstream.
const GREEDY_TEMPERATURE: f32 = 1e-5;

/// How a token is chosen from a row of logits.
///
/// [`LogitAdjustments`] holds the settings that depend on earlier tokens.
#[derive(Clone, Copy, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Sampler {
    /// The most probable token; the lowest id among equals.
    Greedy,
    /// A sample from the softmax after temperature, then top-p, then top-k.
    Stochastic {
        /// Divisor of the logits.
        temperature: f32,
        /// Keeps only tokens whose logit is at least the k-th largest (tokens equal to the k-th
        /// stay).
        top_k: Option<NonZeroUsize>,
        /// Keeps only the most probable tokens that together reach this probability (at least one
        /// token; the lowest ids among equals).
        top_p: Option<f32>,
    },
}

thread_local! {
    /// Workspace of [`Sampler`]: a row of 152k logits is too large to allocate per call.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::default());
}

#[derive(Default)]
struct Scratch {
    maxima: BlockMaxima,
    sums: Vec<f64>,
    kept: Vec<Kept>,
}

impl Sampler {
    /// Creates a sampler from a user's settings; a temperature of at most 1e-5 is greedy.
    ///
    /// # Errors
    /// [`ConfigError`] for a negative or non-finite temperature and for a top-p outside `(0, 1]`.
    pub fn new(
        temperature: f32,
        top_p: Option<f32>,
        top_k: Option<NonZeroUsize>,
    ) -> Result<Self, ConfigError> {
        if !temperature.is_finite() || temperature < 0.0 {
            return Err(ConfigError::Temperature(temperature));
        }
        if let Some(top_p) = top_p
            && !(top_p > 0.0 && top_p <= 1.0)
        {
            return Err(ConfigError::TopP(top_p));
        }
        if temperature <= GREEDY_TEMPERATURE {
            return Ok(Self::Greedy);
        }
        // A top-p of 1 keeps everything.
        let top_p = top_p.filter(|&top_p| top_p < 1.0);
        Ok(Self::Stochastic {
            temperature,
            top_k,
            top_p,
        })
    }

    /// Returns `true` if the choice does not depend on the uniform number.
    #[must_use]
    pub fn is_greedy(&self) -> bool {
        match *self {
            Self::Greedy => true,
            Self::Stochastic { temperature, .. } => temperature <= GREEDY_TEMPERATURE,
        }
    }

    /// Chooses a token from `logits`, `[vocab]`.
    ///
    /// Stochastic samplers invert the cumulative distribution in token-id order: they choose the
    /// first token at which the accumulated probability exceeds `uniform`. A token of probability 0
    /// is never chosen. The call allocates nothing once the thread's workspace has grown.
    ///
    /// # Errors
    /// [`LogitsError::NonFinite`] (row 0) if the logits hold NaN or +inf, or only -inf.
    pub fn pick(&self, logits: &[f32], uniform: f64) -> Result<TokenId, LogitsError> {
        let index = match *self {
            Self::Stochastic {
                temperature,
                top_k,
                top_p,
            } if !self.is_greedy() => SCRATCH.with_borrow_mut(|scratch| {
                let weights = prepare(logits, temperature, scratch)?;
                if top_k.is_none() && top_p.is_none() {
                    choose_in_blocks(logits, weights, uniform, &mut scratch.sums)
                } else {
                    let Scratch { maxima, kept, .. } = scratch;
                    keep(logits, weights, (top_p, top_k), maxima, kept);
                    choose_kept(kept, uniform)
                }
            }),
            Self::Greedy | Self::Stochastic { .. } => row::argmax(logits),
        };
        let index = index.ok_or(LogitsError::NonFinite { row: 0 })?;
        Ok(TokenId::try_from(index).expect("token ids fit 32 bits"))
    }

    /// Returns the probabilities that [`pick`](Self::pick) samples with, `[vocab]`.
    ///
    /// # Errors
    /// Same as [`pick`](Self::pick).
    pub fn probabilities(&self, logits: &[f32]) -> Result<Vec<f64>, LogitsError> {
        let mut probabilities = Vec::new();
        self.probabilities_into(logits, &mut probabilities)?;
        Ok(probabilities)
    }

    /// Like [`probabilities`](Self::probabilities), but writes to a reusable buffer.
    ///
    /// # Errors
    /// Same as [`pick`](Self::pick).
    pub(crate) fn probabilities_into(
        &self,
        logits: &[f32],
        probabilities: &mut Vec<f64>,
    ) -> Result<(), LogitsError> {
        const BROKEN: LogitsError = LogitsError::NonFinite { row: 0 };
        probabilities.clear();
        match *self {
            Self::Stochastic {
                temperature,
                top_k,
                top_p,
            } if !self.is_greedy() => SCRATCH.with_borrow_mut(|scratch| {
                let weights = prepare(logits, temperature, scratch).ok_or(BROKEN)?;
                if top_k.is_none() && top_p.is_none() {
                    probabilities.extend(logits.iter().map(|&value| f64::from(weights.of(value))));
                } else {
                    let Scratch { maxima, kept, .. } = scratch;
                    keep(logits, weights, (top_p, top_k), maxima, kept);
                    probabilities.resize(logits.len(), 0.0);
                    for token in kept {
                        probabilities[token.id as usize] = f64::from(token.weight);
                    }
                }
                let total: f64 = probabilities.iter().sum();
                for probability in probabilities {
                    *probability /= total;
                }
                Ok(())
            }),
            Self::Greedy | Self::Stochastic { .. } => {
                let best = row::argmax(logits).ok_or(BROKEN)?;
                probabilities.resize(logits.len(), 0.0);
                probabilities[best] = 1.0;
                Ok(())
            }
        }
    }
}

/// First pass over a row: checks it and records the maximum of each block.
fn prepare(logits: &[f32], temperature: f32, scratch: &mut Scratch) -> Option<Weights> {
    let max = scratch.maxima.read(logits)?;
    Some(Weights::new(max, temperature))
}

/// Inverts the cumulative distribution over a whole row: finds the block first, then the token.
fn choose_in_blocks(
    logits: &[f32],
    weights: Weights,
    uniform: f64,
    sums: &mut Vec<f64>,
) -> Option<usize> {
    sums.clear();
    sums.extend(logits.chunks(BLOCK).map(|block| weights.sum_block(block)));
    let target = uniform * sums.iter().sum::<f64>();
    let mut before = 0.0;
    let mut chosen = None;
    for (block_idx, &sum) in sums.iter().enumerate() {
        if sum > 0.0 {
            // The last non-empty block absorbs the rounding error.
            chosen = Some((block_idx, before));
        }
        before += sum;
        if before > target {
            break;
        }
    }
    let (block_idx, before) = chosen?;
    let start = block_idx * BLOCK;
    let block = &logits[start..logits.len().min(start + BLOCK)];
    let in_block = block.iter().map(|&value| f64::from(weights.of(value)));
    choose_from(in_block, target - before).map(|offset| start + offset)
}

fn choose_kept(kept: &[Kept], uniform: f64) -> Option<usize> {
    let weights = kept.iter().map(|token| f64::from(token.weight));
    let target = uniform * weights.clone().sum::<f64>();
    choose_from(weights, target).map(|index| kept[index].id as usize)
}

/// Samples an index with `weights` (which need not sum to 1); never an index of weight 0.
pub(crate) fn choose_weighted(weights: &[f64], uniform: f64) -> Option<usize> {
    let target = uniform * weights.iter().sum::<f64>();
    choose_from(weights.iter().copied(), target)
}

/// Returns the first index at which the accumulated weight exceeds `target`; if rounding leaves
/// none, the last index with a weight above 0.
fn choose_from(weights: impl Iterator<Item = f64>, target: f64) -> Option<usize> {
    let mut accumulated = 0.0;
    let mut last = None;
    for (index, weight) in weights.enumerate() {
        if weight > 0.0 {
            accumulated += weight;
            last = Some(index);
            if accumulated > target {
                break;
            }
        }
    }
    last
}
