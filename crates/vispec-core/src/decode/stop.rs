//! Rules for the exact end of a generation.

use crate::TokenId;

/// Limits of a generation.
#[derive(Clone, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GenerationConfig {
    /// Maximum number of tokens to emit, a stop token included.
    pub max_new_tokens: usize,
    /// Tokens that end the answer; the stop token itself is emitted.
    pub stop_tokens: Vec<TokenId>,
}

impl Default for GenerationConfig {
    /// Returns 512 tokens (upstream's default) and no stop token.
    fn default() -> Self {
        Self {
            max_new_tokens: 512,
            stop_tokens: Vec::new(),
        }
    }
}

/// Why a generation ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
#[non_exhaustive]
pub enum FinishReason {
    /// A stop token was emitted.
    Stop,
    /// `max_new_tokens` were emitted, and the target chose one more token.
    Length,
    /// Prompt and answer filled the target's context, and the target chose one more token.
    Context,
    /// The observer asked to stop.
    Cancelled,
}

impl FinishReason {
    /// Returns `stop`, `length`, `context` or `cancelled`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Context => "context",
            Self::Cancelled => "cancelled",
        }
    }
}

impl std::fmt::Display for FinishReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Cuts emitted tokens exactly at the limits.
#[derive(Clone, Debug)]
pub(super) struct StopRules {
    stop_tokens: Vec<TokenId>,
    max_new_tokens: usize,
    /// Number of new tokens that fit in the context.
    room: usize,
}

impl StopRules {
    pub(super) fn new(config: GenerationConfig, room: usize) -> Self {
        let GenerationConfig {
            max_new_tokens,
            stop_tokens,
        } = config;
        Self {
            stop_tokens,
            max_new_tokens,
            room,
        }
    }

    /// Returns the number of tokens that may still be emitted after `n_emitted`.
    pub(super) fn remaining(&self, n_emitted: usize) -> usize {
        self.max_new_tokens.min(self.room).saturating_sub(n_emitted)
    }

    /// Returns how many of `tokens` to emit after `n_emitted`, and the reason if the generation
    /// ends with them.
    ///
    /// It ends with a stop token, or when a token must be dropped because no more may be emitted.
    /// So every emitted token except a stop token has gone through the target, including the last
    /// one. The reference counts its cycles this way, and `n` tokens of plain decoding take `n`
    /// passes.
    pub(super) fn cut(
        &self,
        n_emitted: usize,
        tokens: &[TokenId],
    ) -> (usize, Option<FinishReason>) {
        let remaining = self.remaining(n_emitted);
        let allowed = tokens.len().min(remaining);
        let stop = tokens[..allowed]
            .iter()
            .position(|token| self.stop_tokens.contains(token));
        match stop {
            Some(index) => (index + 1, Some(FinishReason::Stop)),
            None if allowed < tokens.len() => (allowed, Some(self.limit())),
            None => (allowed, None),
        }
    }

    /// Returns the limit that is reached first.
    pub(super) fn limit(&self) -> FinishReason {
        if self.max_new_tokens <= self.room {
            FinishReason::Length
        } else {
            FinishReason::Context
        }
    }
}
