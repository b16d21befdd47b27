//! Acceptance by depth in the tree.

/// Acceptance by depth. Entry 0 is for the first level of the tree.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Acceptance {
    /// `P(accepted >= d)` for `d = 1, 2, ...`.
    pub reached: Vec<f64>,
    /// `P(accepted >= d | accepted >= d - 1)` for `d = 1, 2, ...`.
    pub conditional: Vec<f64>,
}

impl Acceptance {
    /// Computes acceptance from the number of cycles by accepted length.
    ///
    /// Every cycle counts, including the last cycle of an answer, whose tree is cut to the number
    /// of tokens that may still be emitted.
    #[must_use]
    pub fn from_histogram(histogram: &[u64]) -> Self {
        let cycles: u64 = histogram.iter().sum();
        let mut at_least = cycles;
        let mut acceptance = Self::default();
        for &ended in histogram.iter().take(histogram.len().saturating_sub(1)) {
            let before = at_least;
            at_least -= ended;
            acceptance.reached.push(at_least as f64 / cycles as f64);
            acceptance.conditional.push(at_least as f64 / before as f64);
        }
        acceptance
    }

    /// Returns the mean accepted length if no cycle could accept more than `levels` tokens: the sum
    /// of the first `levels` entries of `reached`.
    #[must_use]
    pub fn tau_within(&self, levels: usize) -> f64 {
        self.reached.iter().take(levels).sum()
    }
}
