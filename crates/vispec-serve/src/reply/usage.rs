//! Tokens that a request took.

use serde_json::{Value, json};
use vispec::Answered;

/// Counts over the answers to one request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Usage {
    completion_tokens: usize,
    /// Of the answer that read most: the others may have found all of the prompt read.
    cached_tokens: Option<usize>,
}

impl Usage {
    pub(crate) fn add(&mut self, answered: &Answered) {
        self.completion_tokens += answered.completion_tokens;
        let reused = answered.stats.reused_prompt_tokens();
        let least = self.cached_tokens.map_or(reused, |least| least.min(reused));
        self.cached_tokens = Some(least);
    }

    /// The object of a response.
    pub(crate) fn of_response(&self, prompt_tokens: usize) -> Value {
        json!({
            "input_tokens": prompt_tokens,
            "input_tokens_details": {"cached_tokens": self.cached_tokens.unwrap_or(0)},
            "output_tokens": self.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt_tokens + self.completion_tokens,
        })
    }

    pub(crate) fn object(&self, prompt_tokens: usize) -> Value {
        json!({
            "prompt_tokens": prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens.unwrap_or(0)},
        })
    }
}
