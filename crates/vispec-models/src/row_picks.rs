//! Picking of tokens on the device, so that tokens are read back instead of logits.

use burn::tensor::{DType, Tensor};
use vispec_core::{KnownPick, KnownPicks, Sampler, TokenId};

use crate::error::ModelError;
#[cfg(feature = "cube")]
use crate::nn::{is_here, picked_rows};
use crate::read_backs::{floats, read_back};

/// The rows of a sequence whose logits are needed, with the pick for each.
#[derive(Debug, Default)]
pub(crate) struct WantedRows {
    picks: Vec<RowPick>,
}

impl WantedRows {
    /// Creates the rows that yield the tokens at `positions`.
    pub(crate) fn new(
        picks: Option<KnownPicks>,
        positions: impl IntoIterator<Item = usize>,
    ) -> Self {
        let positions = positions.into_iter();
        let of_row = |position| RowPick::new(picks.map(|picks| picks.at(position)));
        Self {
            picks: positions.map(of_row).collect(),
        }
    }

    /// Returns the number of rows.
    pub(crate) fn len(&self) -> usize {
        self.picks.len()
    }

    pub(crate) fn into_picks(self) -> Vec<RowPick> {
        self.picks
    }
}

/// How the token of a row is picked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum RowPick {
    /// The best token; also used where the sampler is not known.
    Best,
    /// Sampling from the softmax at a temperature with this uniform number.
    Drawn { temperature: f32, uniform: f64 },
}

impl RowPick {
    /// Creates the pick for a known sampler. Sampling from part of the vocabulary happens on the
    /// host.
    fn new(known: Option<KnownPick>) -> Self {
        match known.map(|pick| (pick.sampler(), pick.uniform())) {
            Some((
                Sampler::Stochastic {
                    temperature,
                    top_k: None,
                    top_p: None,
                },
                uniform,
            )) => Self::Drawn {
                temperature,
                uniform,
            },
            _ => Self::Best,
        }
    }

    /// Returns whether this is the pick of `sampler` with `uniform`.
    pub(crate) fn is(self, sampler: &Sampler, uniform: f64) -> bool {
        match *sampler {
            Sampler::Greedy => self == Self::Best,
            Sampler::Stochastic {
                temperature,
                top_k: None,
                top_p: None,
            } => {
                self == Self::Drawn {
                    temperature,
                    uniform,
                }
            }
            _ => false,
        }
    }

    /// Returns the factor for differences of logits, which is 0 for the best token, and the uniform
    /// number.
    #[cfg(feature = "cube")]
    fn numbers(self) -> [f32; 2] {
        match self {
            Self::Best => [0.0; 2],
            #[expect(clippy::cast_possible_truncation, reason = "drawn in f32")]
            Self::Drawn {
                temperature,
                uniform,
            } => [1.0 / temperature, uniform as f32],
        }
    }
}

/// The picked token of a row, and whether the row is sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Picked {
    pub(crate) token: TokenId,
    pub(crate) sound: bool,
}

/// Returns whether the device of `logits` has a kernel for picking.
fn has_kernel(logits: &Tensor<2>) -> bool {
    #[cfg(feature = "cube")]
    return is_here(logits);
    #[cfg(not(feature = "cube"))]
    {
        let _ = logits;
        false
    }
}

/// Returns the picks that the device of `logits` makes. Without a kernel it does not sample.
pub(crate) fn picks_on_device(logits: &Tensor<2>, mut picks: Vec<RowPick>) -> Vec<RowPick> {
    if !has_kernel(logits) {
        picks.fill(RowPick::Best);
    }
    picks
}

/// Picks a token from each row of `logits` `[rows, vocab]`, with one read-back.
pub(crate) fn read_picked(logits: Tensor<2>, picks: &[RowPick]) -> Result<Vec<Picked>, ModelError> {
    let columns = read_back(columns(logits, picks), PICKED)?;
    let rows = floats(&columns, PICKED)?.chunks_exact(2);
    let rows = rows.map(|row| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index that was cast to float"
        )]
        let token = row[0] as TokenId;
        Picked {
            token,
            sound: row[1].is_finite(),
        }
    });
    Ok(rows.collect())
}

/// Name of the values in errors of reading them.
const PICKED: &str = "picked tokens";

/// Returns the token of each row and a number that is finite if the row is sound, `[rows, 2]` in
/// f32. Tokens are exact because they are below 2^24.
fn columns(logits: Tensor<2>, picks: &[RowPick]) -> Tensor<2> {
    #[cfg(feature = "cube")]
    if has_kernel(&logits) {
        let picks: Vec<[f32; 2]> = picks.iter().map(|pick| pick.numbers()).collect();
        return picked_rows(logits, &picks);
    }
    debug_assert!(picks.iter().all(|&pick| pick == RowPick::Best));
    let wide = Tensor::<2>::cast(logits, DType::F32);
    let token = Tensor::<2>::cast(wide.clone().argmax(1).float(), DType::F32);
    // Masked tokens add nothing to this sum. NaN, +inf, and a row with only -inf make it NaN.
    let greatest = wide.clone().max_dim(1);
    let sum = (wide - greatest).exp().sum_dim(1);
    Tensor::cat(vec![token, sum], 1)
}

#[cfg(all(test, feature = "wgpu"))]
mod tests;
