//! How good a draft is on samples that it was not trained on.

use std::path::Path;

use serde::{Deserialize, Serialize};
use vispec_models::{Draft, LayerIds, TargetText};

use super::samples::{Drawn, Samples};
use super::simulate::{Drafting, Simulation};
use crate::config::TrainConfig;
use crate::data::Features;
use crate::error::TrainError;
use crate::init::QUANTIZED_HEAD;
use crate::loss::Head;
use crate::network::Network;
use crate::step::Losses;

/// Sums of losses over batches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LossSums {
    /// Sums of what each batch reports.
    pub sums: Losses,
    /// Batches.
    pub batches: usize,
}

impl LossSums {
    /// Adds a batch.
    pub(crate) fn add(&mut self, losses: &Losses) {
        let sums = &mut self.sums;
        sums.loss += losses.loss;
        sums.value += losses.value;
        sums.divergence += losses.divergence;
        sums.ranking += losses.ranking;
        for (sum, top) in sums.top.iter_mut().zip(losses.top) {
            *sum += top;
        }
        sums.supervised += losses.supervised;
        sums.tokens += losses.tokens;
        self.batches += 1;
    }

    /// Means over batches; positions and tokens stay sums. None without a batch.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
    pub(crate) fn mean(&self) -> Option<Losses> {
        if self.batches == 0 {
            return None;
        }
        let n = self.batches as f64;
        let sums = &self.sums;
        Some(Losses {
            loss: sums.loss / n,
            value: sums.value / n,
            divergence: sums.divergence / n,
            ranking: sums.ranking / n,
            top: sums.top.map(|top| top / n),
            supervised: sums.supervised,
            tokens: sums.tokens,
        })
    }
}

/// What held-out samples say.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// Means over samples; none if all were refused.
    pub losses: Option<Losses>,
    /// Samples that were read.
    pub samples: usize,
    /// Samples that could not be supervised.
    pub refused: usize,
    /// Drafting on the first of them.
    pub drafting: Drafting,
    /// Mean accepted length of greedy chains.
    pub chain_tau: Option<f64>,
    /// Mean accepted length of dynamic trees.
    pub tree_tau: Option<f64>,
    /// Share of right guesses of steps 1 to 5 on the draft's own output.
    pub step_accuracy: [Option<f64>; super::simulate::ROLLED_STEPS],
}

/// Who is judged, with what.
pub(super) struct Judge<'j> {
    pub(super) config: &'j TrainConfig,
    pub(super) target: &'j TargetText,
    pub(super) head: &'j Head,
    pub(super) features: Features,
}

impl Judge<'_> {
    /// Judges `network`, which was exported to `dir`.
    ///
    /// `progress` is told how many samples of how many are done.
    pub(super) fn judge(
        &self,
        network: &Network,
        dir: &Path,
        held_out: &dyn Samples,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<HeldOut, TrainError> {
        let draft = Draft::load_for(dir, self.target, LayerIds::Auto)?;
        // Losses may compare part of the vocabulary; what is right is a matter of all of it.
        let weight = self.target.head_weight().ok_or(QUANTIZED_HEAD)?;
        let whole = Head::new(weight);
        let simulation = Simulation {
            draft: &draft,
            head: &whole,
            features: self.features,
            chain_len: self.config.evaluation.chain_len,
            tree: self.config.tree_shape()?,
        };
        let mut losses = LossSums::default();
        let mut refused = 0;
        let mut drafting = Drafting::default();
        for index in 0..held_out.len() {
            progress(index, held_out.len());
            match held_out.draw(index, None)? {
                Drawn::Sample(sample) => {
                    let samples = std::slice::from_ref(&*sample);
                    let objective = &self.config.objective;
                    losses.add(&network.losses(samples, objective, self.head)?);
                    if index < self.config.evaluation.drafted_samples {
                        simulation.draft_through(&held_out.captured(index)?, &mut drafting)?;
                    }
                }
                Drawn::Refused { .. } => refused += 1,
            }
        }
        Ok(HeldOut {
            losses: losses.mean(),
            samples: held_out.len(),
            refused,
            chain_tau: drafting.chain.tau(),
            tree_tau: drafting.tree.tau(),
            step_accuracy: drafting.step_accuracy(),
            drafting,
        })
    }
}
