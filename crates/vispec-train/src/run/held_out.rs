//! Evaluation of a draft on held-out samples.

use std::path::Path;

use serde::{Deserialize, Serialize};
use vispec_models::{Draft, LayerIds, TargetText};

use super::samples::{Drawn, Samples};
use super::simulate::{Drafting, Simulation};
use crate::config::TrainConfig;
use crate::data::Features;
use crate::error::TrainError;
use crate::loss::Head;
use crate::network::Network;
use crate::step::Losses;

/// Sums of losses over batches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LossSums {
    /// Sums of the losses of all batches.
    pub sums: Losses,
    /// Number of batches.
    pub batches: usize,
}

impl LossSums {
    /// Adds the losses of a batch.
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

    /// Returns the means over batches; positions and tokens stay sums. `None` without a batch.
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

/// Results on held-out samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HeldOut {
    /// Losses as means over samples; `None` if all were refused.
    pub losses: Option<Losses>,
    /// Number of held-out samples.
    pub samples: usize,
    /// Number of refused samples.
    pub refused: usize,
    /// Results of simulated drafting on the first samples.
    pub drafting: Drafting,
    /// Mean acceptance length of greedy chains.
    pub chain_tau: Option<f64>,
    /// Mean acceptance length of dynamic trees.
    pub tree_tau: Option<f64>,
    /// Share of correct guesses in steps 1 to 5 on the draft's own output.
    pub step_accuracy: [Option<f64>; super::simulate::ROLLED_STEPS],
}

/// The evaluation of a draft.
pub(super) struct Judge<'j> {
    pub(super) config: &'j TrainConfig,
    pub(super) target: &'j TargetText,
    pub(super) head: &'j Head,
    pub(super) features: Features,
}

impl Judge<'_> {
    /// Evaluates `network`, which was exported to `dir`.
    ///
    /// `progress` is called with the number of samples done and the number of all samples.
    pub(super) fn judge(
        &self,
        network: &Network,
        dir: &Path,
        held_out: &dyn Samples,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<HeldOut, TrainError> {
        let draft = Draft::load_for(dir, self.target, LayerIds::Auto)?;
        // Losses may compare only part of the vocabulary; the best token is chosen from all of it.
        let weight = self.target.head_weight().ok_or(TrainError::QuantizedHead)?;
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
