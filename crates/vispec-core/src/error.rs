//! Errors of the decoding cycle and of configuration.

use crate::{BoxError, LogitsError, Panicked, TokenId, TreeError};

/// An invalid setting.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The temperature is negative, infinite or NaN.
    #[error("temperature must be a finite number of at least 0, found {0}")]
    Temperature(f32),
    /// The top-p is outside `(0, 1]`.
    #[error("top-p must be above 0 and at most 1, found {0}")]
    TopP(f32),
    /// A penalty or bias is not finite, or a repetition penalty is not above 0.
    #[error(
        "the {quantity} is {found}; it must be finite, and a repetition penalty must be above 0"
    )]
    Adjustment {
        /// Name of the setting.
        quantity: &'static str,
        /// Its value.
        found: f32,
    },
    /// The minimum n-gram length of prompt lookup is zero or greater than the maximum.
    #[error("n-gram lengths must satisfy 1 <= min <= max, found min {min} and max {max}")]
    NgramRange {
        /// Shortest n-gram.
        min: usize,
        /// Longest n-gram.
        max: usize,
    },
    /// Prompt lookup has no branch: it would follow no match.
    #[error("prompt lookup must follow at least one match")]
    NoBranch,
}

/// Why a generation ended without a result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The target model failed.
    #[error("the target model failed")]
    Target(#[source] BoxError),
    /// The drafter failed.
    #[error("the drafter failed")]
    Draft(#[source] BoxError),
    /// The drafter returned an unusable tree.
    #[error("the drafter returned an unusable tree")]
    Tree(#[from] TreeError),
    /// A drafted token is outside the target's vocabulary.
    #[error(
        "node {node} of the draft tree holds token {token}, but the target's vocabulary has \
         {vocab_size} tokens"
    )]
    VocabularyMismatch {
        /// Index of the node.
        node: usize,
        /// Token of the node.
        token: TokenId,
        /// Size of the target's vocabulary.
        vocab_size: usize,
    },
    /// A row of the target's logits from which a token must be chosen holds NaN or +inf, or only
    /// -inf.
    #[error("the target's logits are not finite in cycle {cycle}, row {row}")]
    NonFiniteLogits {
        /// Cycle, counted from 1; 0 is the prefill.
        cycle: usize,
        /// Row of the logits: the node of the tree, 0 in the prefill.
        row: usize,
    },
    /// The prompt holds no token.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// The prompt leaves no room for an answer.
    #[error(
        "the prompt has {prompt_tokens} tokens, but prompt and answer share a context of \
         {context_len}"
    )]
    PromptTooLong {
        /// Number of prompt tokens.
        prompt_tokens: usize,
        /// Context length of the target.
        context_len: usize,
    },
    /// The number of logits rows returned by the target violates its contract.
    #[error("the target returned {found} rows of logits, expected {expected}")]
    LogitsRows {
        /// Rows expected.
        expected: usize,
        /// Rows found.
        found: usize,
    },
    /// The length of the target's cache violates its contract.
    #[error("the target's cache holds {found} rows after {after}, expected {expected}")]
    CacheLength {
        /// The last operation.
        after: &'static str,
        /// Rows expected.
        expected: usize,
        /// Rows found.
        found: usize,
    },
    /// The grammar of the answer cannot determine which tokens are allowed next.
    #[error("the grammar of the answer failed")]
    Constraint(#[source] BoxError),
    /// The acceptance rule returned a path that does not descend from the root.
    #[error("the acceptance rule returned a path that is not a root path of the tree")]
    InvalidVerdict,
    /// A plug-in panicked.
    #[error(transparent)]
    Panicked(#[from] Panicked),
    /// The session was used after it had failed.
    #[error("the session cannot continue after an error")]
    SessionFailed,
}

impl DecodeError {
    /// Converts an error of choosing a token in `cycle`.
    pub(crate) fn from_logits(error: LogitsError, cycle: usize) -> Self {
        match error {
            LogitsError::NonFinite { row } => Self::NonFiniteLogits { cycle, row },
            LogitsError::Device(error) => Self::Target(error),
            LogitsError::Constraint(error) => Self::Constraint(error),
        }
    }
}
