//! Where the time of answers goes.

use crate::record::PhaseTimes;

/// Share of the whole time by phase; the shares add up to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PhaseShares {
    /// Image processing, chat template and tokenizer.
    pub preprocess: f64,
    /// Vision tower.
    pub vision: f64,
    /// The target over the prompt.
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

    /// The shares, in the order of an answer.
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

    /// Shares of summed times; all 0 if there is no time.
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
