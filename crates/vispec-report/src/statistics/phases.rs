//! Shares of the time of answers by phase.

use crate::record::PhaseTimes;

/// Share of the total time by phase. The shares add up to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PhaseShares {
    /// Image decoding, image processing, chat template and tokenizer.
    pub preprocess: f64,
    /// Vision tower.
    pub vision: f64,
    /// The target's prefill.
    pub prefill: f64,
    /// The drafter.
    pub draft: f64,
    /// Verify passes.
    pub verify: f64,
    /// The rest of the cycles.
    pub other: f64,
}

impl PhaseShares {
    /// Names of the phases, in the order of [`values`](Self::values).
    pub(crate) const NAMES: [&str; 6] = [
        "preprocess",
        "vision",
        "prefill",
        "draft",
        "verify",
        "other",
    ];

    /// Returns the shares, in chronological order.
    #[must_use]
    pub fn values(&self) -> [f64; 6] {
        [
            self.preprocess,
            self.vision,
            self.prefill,
            self.draft,
            self.verify,
            self.other,
        ]
    }

    /// Computes the shares of summed times; all 0 if the total time is 0.
    #[must_use]
    pub fn of(times: &PhaseTimes) -> Self {
        let parts = [
            times.preprocess,
            times.vision,
            times.prefill,
            times.draft,
            times.verify,
            times.other,
        ];
        let sum: f64 = parts.iter().sum();
        let [preprocess, vision, prefill, draft, verify, other] =
            parts.map(|part| if sum > 0.0 { part / sum } else { 0.0 });
        Self {
            preprocess,
            vision,
            prefill,
            draft,
            verify,
            other,
        }
    }
}
