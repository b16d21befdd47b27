//! Detection of a model that no longer makes progress.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use vispec::SchedulerFigures;

/// The time of the model's last observed progress.
#[derive(Debug, Clone)]
pub(crate) struct Pulse(Arc<Mutex<(u64, Instant)>>);

impl Pulse {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new((0, Instant::now()))))
    }

    /// How long answers have been running without a pass, as far as observed.
    pub(crate) fn since_pass(&self, figures: SchedulerFigures, now: Instant) -> Duration {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if figures.running == 0 || figures.passes != seen.0 {
            *seen = (figures.passes, now);
        }
        now.duration_since(seen.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_counts_while_answers_run_without_a_pass() {
        let pulse = Pulse::new();
        let start = Instant::now();
        let figures = |running, passes| SchedulerFigures {
            running,
            passes,
            ..SchedulerFigures::default()
        };
        let at = |seconds| start + Duration::from_secs(seconds);
        let since = |running, passes, seconds| {
            pulse
                .since_pass(figures(running, passes), at(seconds))
                .as_secs()
        };
        assert_eq!(since(0, 0, 1000), 0);
        assert_eq!(since(1, 0, 1200), 200);
        assert_eq!(since(1, 5, 1300), 0);
        assert_eq!(since(2, 5, 1900), 600);
        assert_eq!(since(0, 5, 2000), 0);
        assert_eq!(since(1, 5, 2001), 1);
    }
}
