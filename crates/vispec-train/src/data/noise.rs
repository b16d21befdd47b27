//! Noise on the hidden states that a draft is trained on.

use rand::{RngExt as _, SeedableRng as _};
use rand_pcg::Pcg64;

/// Sequence length at which the noise has the configured width.
const REFERENCE_LEN: f32 = 512.0;

/// Uniform noise. It prepares a draft for its own outputs, which are never quite equal to the
/// target's hidden states that they replace while drafting.
///
/// The noise of a sample depends only on the seed, the epoch and the index of the sample, so
/// resuming an interrupted run needs no generator state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Noise {
    /// Width of the interval for a sequence of 512 tokens; upstream's is 0.2. The width used is
    /// inversely proportional to the length of the sequence.
    pub width: f32,
    /// Seed of the run.
    pub seed: u64,
    /// The epoch, from 0.
    pub epoch: u64,
}

impl Noise {
    /// Adds noise to the `values` of sample number `index`, which has `len` tokens.
    #[expect(clippy::cast_precision_loss, reason = "sequences are short")]
    pub(crate) fn add(&self, values: &mut [f32], index: usize, len: usize) {
        if self.width <= 0.0 {
            return;
        }
        let scale = self.width * REFERENCE_LEN / len as f32;
        let stream = (u128::from(self.epoch) << 64) | index as u128;
        let mut generator = Pcg64::new(u128::from(self.seed), stream);
        // The first numbers of neighbouring streams are similar, so seed once more.
        let mut generator = Pcg64::seed_from_u64(generator.random());
        for value in values {
            *value += (generator.random::<f32>() - 0.5) * scale;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(epoch: u64, index: usize) -> Vec<f32> {
        let noise = Noise {
            width: 0.2,
            seed: 3,
            epoch,
        };
        let mut values = vec![0.0; 4096];
        noise.add(&mut values, index, 256);
        values
    }

    #[test]
    fn noise_is_uniform_and_depends_on_epoch_and_sample_only() {
        let values = drawn(1, 7);
        assert_eq!(values, drawn(1, 7));
        assert_ne!(values, drawn(2, 7));
        assert_ne!(values, drawn(1, 8));
        let largest = values.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        assert!((0.199..=0.2).contains(&largest), "{largest}");
        let mean = values.iter().sum::<f32>() / 4096.0;
        assert!(mean.abs() < 0.01, "{mean}");
    }
}
