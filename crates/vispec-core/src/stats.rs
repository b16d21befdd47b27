//! Counts and times of a generation.

use std::ops::{Add, AddAssign};
use std::time::Duration;

use crate::Idle;

/// Counts and times of one generation, or their sums over several.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GenerationStats {
    pub(crate) prompt_tokens: usize,
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) reused_prompt_tokens: usize,
    pub(crate) new_tokens: usize,
    pub(crate) accepted_per_cycle: Vec<u32>,
    pub(crate) nodes_per_cycle: Vec<u32>,
    pub(crate) idle_cycles: [u64; Idle::ALL.len()],
    pub(crate) prefill_time: Duration,
    pub(crate) draft_time: Duration,
    pub(crate) verify_time: Duration,
    #[cfg_attr(feature = "serde", serde(default))]
    pub(crate) root_time: Duration,
    pub(crate) decode_time: Duration,
}

impl GenerationStats {
    /// Returns the number of prompt tokens, repeated image placeholders included.
    #[must_use]
    pub fn prompt_tokens(&self) -> usize {
        self.prompt_tokens
    }

    /// Returns the number of prompt tokens that were already in the cache and not read again.
    #[must_use]
    pub fn reused_prompt_tokens(&self) -> usize {
        self.reused_prompt_tokens
    }

    /// Returns the number of emitted tokens, including the first one (which comes from the prefill)
    /// and a stop token.
    #[must_use]
    pub fn new_tokens(&self) -> usize {
        self.new_tokens
    }

    /// Returns the number of cycles; each has one verify pass.
    #[must_use]
    pub fn n_cycles(&self) -> usize {
        self.accepted_per_cycle.len()
    }

    /// Returns the emitted draft tokens of each cycle; root and bonus token are not counted.
    #[must_use]
    pub fn accepted_per_cycle(&self) -> &[u32] {
        &self.accepted_per_cycle
    }

    /// Returns the verified nodes of each cycle, the root included.
    #[must_use]
    pub fn nodes_per_cycle(&self) -> &[u32] {
        &self.nodes_per_cycle
    }

    /// Returns the number of cycles that verified only the root, for this reason.
    #[must_use]
    pub fn idle_cycles(&self, reason: Idle) -> u64 {
        self.idle_cycles[reason as usize]
    }

    /// Returns the most frequent reason if most cycles had no draft. The cycle of the last token,
    /// which has no draft by design, does not count.
    #[must_use]
    pub fn mostly_idle(&self) -> Option<Idle> {
        let reasons = Idle::ALL.into_iter();
        let reasons = reasons.filter(|&idle| idle != Idle::LastToken);
        let idle: u64 = reasons.clone().map(|idle| self.idle_cycles(idle)).sum();
        let drafted = self.nodes_per_cycle.iter().filter(|&&n| n > 1).count() as u64;
        let most = reasons.max_by_key(|&idle| self.idle_cycles(idle));
        most.filter(|_| idle > drafted)
    }

    /// Returns the number of cycles by acceptance length: entry `i` counts the cycles that accepted
    /// `i` tokens.
    #[must_use]
    pub fn accepted_histogram(&self) -> Vec<u64> {
        let longest = self.accepted_per_cycle.iter().max();
        let mut histogram = vec![0; longest.map_or(0, |&longest| longest as usize + 1)];
        for &accepted in &self.accepted_per_cycle {
            histogram[accepted as usize] += 1;
        }
        histogram
    }

    /// Returns the mean number of accepted draft tokens per cycle, without the bonus token (as in
    /// the paper's tables); 0 without a cycle.
    #[must_use]
    pub fn tau(&self) -> f64 {
        if self.accepted_per_cycle.is_empty() {
            return 0.0;
        }
        let accepted: u64 = self.accepted_per_cycle.iter().map(|&n| u64::from(n)).sum();
        accepted as f64 / self.n_cycles() as f64
    }

    /// Returns the mean number of tokens per cycle with the bonus token: `tau() + 1` (the number
    /// that EAGLE, SGLang and vLLM report), or 0 without a cycle.
    ///
    /// An answer that ends by length has exactly `n_cycles() * tokens_per_cycle()` tokens: its last
    /// cycle has no bonus token, but the first token comes from the prefill. An answer that ends
    /// with a stop token has one token more if the stop token was a bonus token, and exactly this
    /// number if it was drafted.
    #[must_use]
    pub fn tokens_per_cycle(&self) -> f64 {
        if self.accepted_per_cycle.is_empty() {
            0.0
        } else {
            self.tau() + 1.0
        }
    }

    /// Returns the time to the first token: prefill and first pick.
    #[must_use]
    pub fn prefill_time(&self) -> Duration {
        self.prefill_time
    }

    /// Returns the time in the drafter, its prefill included.
    #[must_use]
    pub fn draft_time(&self) -> Duration {
        self.draft_time
    }

    /// Returns the time in verify passes and in the picks from their logits.
    #[must_use]
    pub fn verify_time(&self) -> Duration {
        self.verify_time
    }

    /// Returns the part of [`verify_time`](Self::verify_time) spent in passes over only the root.
    #[must_use]
    pub fn root_time(&self) -> Duration {
        self.root_time
    }

    /// Returns the time in all cycles: draft, verify and other.
    #[must_use]
    pub fn decode_time(&self) -> Duration {
        self.decode_time
    }

    /// Returns the decode time outside draft and verify: caches, features, observers.
    #[must_use]
    pub fn other_time(&self) -> Duration {
        self.decode_time
            .saturating_sub(self.draft_time + self.verify_time)
    }

    /// Returns new tokens divided by decode time; 0 if nothing was decoded.
    ///
    /// The first token counts although it comes from the prefill. Plain and speculative decoding
    /// are counted alike, so their ratio is fair.
    #[must_use]
    pub fn decode_tokens_per_second(&self) -> f64 {
        if self.decode_time.is_zero() {
            return 0.0;
        }
        self.new_tokens as f64 / self.decode_time.as_secs_f64()
    }
}

impl AddAssign<&Self> for GenerationStats {
    fn add_assign(&mut self, other: &Self) {
        self.prompt_tokens += other.prompt_tokens;
        self.reused_prompt_tokens += other.reused_prompt_tokens;
        self.new_tokens += other.new_tokens;
        self.accepted_per_cycle
            .extend_from_slice(&other.accepted_per_cycle);
        self.nodes_per_cycle
            .extend_from_slice(&other.nodes_per_cycle);
        for (count, other) in self.idle_cycles.iter_mut().zip(other.idle_cycles) {
            *count += other;
        }
        self.prefill_time += other.prefill_time;
        self.draft_time += other.draft_time;
        self.verify_time += other.verify_time;
        self.root_time += other.root_time;
        self.decode_time += other.decode_time;
    }
}

impl Add for GenerationStats {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += &other;
        self
    }
}
