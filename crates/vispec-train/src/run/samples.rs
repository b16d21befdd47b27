//! The samples of a run: a part to train on, and a part that is held out.

use std::ops::Range;

use vispec_data::capture::{CapturedSample, SampleSource};
use vispec_data::order::numpy_permutation;

use crate::data::{Noise, PrepareOptions, Prepared, PreparedSample, Refusal, prepare};
use crate::error::TrainError;

/// A prepared sample, or the reason why it is refused.
pub(super) enum Drawn {
    Sample(Box<PreparedSample>),
    Refused { id: String, refusal: Refusal },
}

/// Access to samples by index, independent of their source.
pub(super) trait Samples {
    fn len(&self) -> usize;
    fn captured(&self, index: usize) -> Result<CapturedSample, TrainError>;
    fn draw(&self, index: usize, noise: Option<Noise>) -> Result<Drawn, TrainError>;
}

/// A range of the samples of a source.
pub(super) struct Part<'s, S> {
    pub(super) source: &'s S,
    pub(super) range: Range<usize>,
    pub(super) options: PrepareOptions,
}

impl<S: SampleSource> Samples for Part<'_, S> {
    fn len(&self) -> usize {
        self.range.len()
    }

    fn captured(&self, index: usize) -> Result<CapturedSample, TrainError> {
        let index = self.range.start + index;
        self.source
            .sample(index)
            .map_err(|source| TrainError::ReadSample {
                index,
                source: Box::new(source),
            })
    }

    fn draw(&self, index: usize, noise: Option<Noise>) -> Result<Drawn, TrainError> {
        let captured = self.captured(index)?;
        let options = PrepareOptions {
            noise,
            ..self.options.clone()
        };
        Ok(
            match prepare(&captured, self.range.start + index, &options)? {
                Prepared::Sample(sample) => Drawn::Sample(sample),
                Prepared::Refused(refusal) => Drawn::Refused {
                    id: captured.id,
                    refusal,
                },
            },
        )
    }
}

/// Splits samples into the first ones, to train on, and the rest, which are held out. At least one
/// is held out if the share is above 0.
pub(super) fn split(n_samples: usize, held_out: f64) -> Result<[Range<usize>; 2], TrainError> {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a number of samples"
    )]
    let n_held_out = (n_samples as f64 * held_out).ceil() as usize;
    let n_train = n_samples.saturating_sub(n_held_out);
    if n_train == 0 {
        return Err(TrainError::NoSamples {
            found: n_samples,
            held_out: n_held_out.min(n_samples),
        });
    }
    Ok([0..n_train, n_train..n_samples])
}

/// Returns the order of the samples in an epoch, which depends only on the seed and the epoch.
pub(super) fn order(seed: u64, epoch: usize, n_samples: usize) -> Vec<usize> {
    // An odd factor, so that epochs of one seed do not repeat those of the next.
    let seed = seed.wrapping_add((epoch as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    numpy_permutation(seed, n_samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_samples_are_held_out() {
        assert_eq!(split(100, 0.05).unwrap(), [0..95, 95..100]);
        assert_eq!(split(3, 0.05).unwrap(), [0..2, 2..3]);
        assert_eq!(split(3, 0.0).unwrap(), [0..3, 3..3]);
        assert!(matches!(
            split(1, 0.05),
            Err(TrainError::NoSamples {
                found: 1,
                held_out: 1
            })
        ));
    }

    #[test]
    fn every_epoch_has_its_own_order() {
        assert_eq!(order(1, 2, 20), order(1, 2, 20));
        assert_ne!(order(1, 2, 20), order(1, 3, 20));
        let mut sorted = order(1, 2, 20);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>());
    }
}
