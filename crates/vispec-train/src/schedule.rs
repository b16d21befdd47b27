//! The learning rate schedule.

use serde::{Deserialize, Serialize};

/// Linear warm-up from zero, then linear decay to zero, like upstream's schedule. Durations are in
/// epochs, so that they do not depend on the number of samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// The peak learning rate.
    pub learning_rate: f64,
    /// Epochs of warm-up, at whose end the peak is reached.
    pub warmup_epochs: f64,
    /// Epochs from the start of the run until the rate is zero.
    pub total_epochs: f64,
}

impl Schedule {
    /// Returns the learning rate of step `step` (from 0) if an epoch has `steps_per_epoch` steps.
    ///
    /// As with PyTorch's schedulers, the first step has rate 0 if there is a warm-up.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "steps stay far below 2^52")]
    pub fn at(&self, step: usize, steps_per_epoch: usize) -> f64 {
        let steps_per_epoch = steps_per_epoch as f64;
        let warmup = (self.warmup_epochs * steps_per_epoch).floor();
        let total = (self.total_epochs * steps_per_epoch).floor();
        let step = step as f64;
        let share = if step < warmup {
            step / warmup.max(1.0)
        } else {
            (total - step) / (total - warmup).max(1.0)
        };
        self.learning_rate * share.max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_for_one_epoch_and_falls_to_zero() {
        let schedule = Schedule {
            learning_rate: 3e-6,
            warmup_epochs: 1.0,
            total_epochs: 20.0,
        };
        let at = |step| schedule.at(step, 100);
        assert!(at(0).abs() < 1e-18);
        assert!((at(50) - 1.5e-6).abs() < 1e-18);
        assert!((at(100) - 3e-6).abs() < 1e-18);
        assert!((at(1050) - 1.5e-6).abs() < 1e-18);
        assert!(at(2000).abs() < 1e-18);
        assert!(at(2050).abs() < 1e-18);
    }
}
