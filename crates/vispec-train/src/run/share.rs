//! One rank's part of a step: the losses and gradients of its share of the batches.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use vispec_data::capture::SampleSource;

use super::metrics::RankTimes;
use super::samples::{Drawn, Part, Samples as _};
use crate::config::TrainConfig;
use crate::data::{Noise, PreparedSample, Refusal};
use crate::error::TrainError;
use crate::gradients::Gradients;
use crate::loss::Head;
use crate::network::Network;
use crate::ranks::{GradientSum, Ranks};
use crate::step::Losses;

/// A step to take.
pub(super) struct Step<'w, S> {
    pub(super) config: &'w TrainConfig,
    pub(super) network: &'w Network,
    pub(super) head: &'w Head,
    pub(super) part: &'w Part<'w, S>,
    pub(super) epoch: usize,
    /// Number of the step from 0, counted through all epochs.
    pub(super) number: usize,
}

/// Results of batches, apart from their gradients.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Found {
    /// Losses of the batches that have samples to train on.
    pub(super) losses: Vec<Losses>,
    /// Refused samples.
    pub(super) refused: BTreeMap<String, Refusal>,
}

/// Results of all batches of a step.
pub(super) struct Whole {
    pub(super) found: Found,
    pub(super) gradients: Gradients,
    /// Times of this rank, if there are several.
    pub(super) times: Option<RankTimes>,
}

impl<S: SampleSource> Step<'_, S> {
    /// Computes the batches together with the other ranks. All ranks get the same result, bit for
    /// bit the same as with one rank.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] and any error of reading samples; with several ranks,
    /// [`TrainError::Ranks`].
    pub(super) fn take(&self, batches: &[&[usize]], ranks: &Ranks) -> Result<Whole, TrainError> {
        let started = Instant::now();
        let own = self.share(&batches[ranks.share(batches.len())], ranks);
        let computed = started.elapsed();
        let (own, gradients) = ranks.all_succeed(own)?;
        let waited = started.elapsed();
        let mut found = Found::default();
        for of_rank in ranks.gather(own)? {
            found.losses.extend(of_rank.losses);
            found.refused.extend(of_rank.refused);
        }
        let gradients = gradients.finish(&self.head.device())?;
        let exchanged = started.elapsed();
        let share = |from: Duration, to: Duration| {
            (to - from).as_secs_f64() / exchanged.as_secs_f64().max(1e-9)
        };
        Ok(Whole {
            found,
            gradients,
            times: (ranks.count() > 1).then(|| RankTimes {
                waiting: share(computed, waited),
                exchanging: share(waited, exchanged),
            }),
        })
    }

    fn share(
        &self,
        batches: &[&[usize]],
        ranks: &Ranks,
    ) -> Result<(Found, GradientSum), TrainError> {
        let mut found = Found::default();
        let mut sum = GradientSum::new(ranks, self.config.compute.gradients);
        for batch in batches {
            let samples = self.draw(batch, &mut found)?;
            if samples.is_empty() {
                continue;
            }
            let (losses, gradients) =
                self.network
                    .backward(&samples, &self.config.objective, self.head)?;
            self.require_finite(&losses, &gradients, &samples)?;
            found.losses.push(losses);
            sum.add(gradients)?;
        }
        Ok((found, sum))
    }

    /// Returns the samples of a batch that can be trained on, and records the others in `found`.
    fn draw(
        &self,
        indices: &[usize],
        found: &mut Found,
    ) -> Result<Vec<PreparedSample>, TrainError> {
        let noise = Noise {
            width: self.config.data.noise_width,
            seed: self.config.seed,
            epoch: self.epoch as u64,
        };
        let mut samples = Vec::with_capacity(indices.len());
        for &index in indices {
            match self.part.draw(index, Some(noise))? {
                Drawn::Sample(sample) => samples.push(*sample),
                Drawn::Refused { id, refusal } => {
                    found.refused.insert(id, refusal);
                }
            }
        }
        Ok(samples)
    }

    fn require_finite(
        &self,
        losses: &Losses,
        gradients: &Gradients,
        samples: &[PreparedSample],
    ) -> Result<(), TrainError> {
        let quantity = match (losses.loss.is_finite(), gradients.not_finite()?) {
            (false, _) => "the loss".to_owned(),
            (true, Some(name)) => format!("the gradient of {name}"),
            (true, None) => return Ok(()),
        };
        Err(TrainError::NotFinite {
            step: self.number,
            quantity,
            samples: samples.iter().map(|sample| sample.id.clone()).collect(),
        })
    }
}
