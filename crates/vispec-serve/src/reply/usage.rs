//! Token counts of a request.

use serde_json::{Value, json};
use vispec::{Answered, SpeculationReason};

/// Counts over all answers to one request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usage {
    completion_tokens: usize,
    /// Minimum over the answers, because later ones may find the whole prompt in the cache.
    cached_tokens: Option<usize>,
    /// Why drafting was switched off or changed, without duplicates.
    speculation: Vec<SpeculationReason>,
}

impl Usage {
    pub(crate) fn add(&mut self, answered: &Answered) {
        self.completion_tokens += answered.completion_tokens;
        let reused = answered.stats.reused_prompt_tokens();
        let least = self.cached_tokens.map_or(reused, |least| least.min(reused));
        self.cached_tokens = Some(least);
        for reason in &answered.speculation {
            if !self.speculation.contains(reason) {
                self.speculation.push(*reason);
            }
        }
    }

    /// Why drafting was switched off or changed.
    pub(crate) fn speculation(&self) -> &[SpeculationReason] {
        &self.speculation
    }

    /// The usage object of a response.
    pub(crate) fn of_response(&self, prompt_tokens: usize) -> Value {
        json!({
            "input_tokens": prompt_tokens,
            "input_tokens_details": {"cached_tokens": self.cached_tokens.unwrap_or(0)},
            "output_tokens": self.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt_tokens + self.completion_tokens,
            "speculation_reasons": names(&self.speculation),
        })
    }

    pub(crate) fn object(&self, prompt_tokens: usize) -> Value {
        json!({
            "prompt_tokens": prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens.unwrap_or(0)},
            "speculation_reasons": names(&self.speculation),
        })
    }
}

/// Names of reasons, in order.
pub(super) fn names(reasons: &[SpeculationReason]) -> Vec<&'static str> {
    reasons.iter().map(|reason| reason.as_str()).collect()
}
