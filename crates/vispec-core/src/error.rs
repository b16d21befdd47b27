//! Errors of the decoding cycle and of configuration.

use crate::{BoxError, LogitsError, Panicked, TokenId, TreeError};

/// A setting that makes no sense.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Temperature is negative, infinite or not a number.
    #[error("temperature must be a finite number of at least 0, found {0}")]
    Temperature(f32),
    /// Top-p is outside `(0, 1]`.
    #[error("top-p must be above 0 and at most 1, found {0}")]
    TopP(f32),
    /// A penalty or a bias makes no sense.
    #[error(
        "the {quantity} is {found}, expected a finite number, for a repetition penalty above 0"
    )]
    Adjustment {
        /// What it is.
        quantity: &'static str,
        /// Its value.
        found: f32,
    },
    /// The n-gram lengths of prompt lookup are zero or the wrong way round.
    #[error("n-gram lengths must satisfy 1 <= min <= max, found min {min} and max {max}")]
    NgramRange {
        /// Shortest n-gram.
        min: usize,
        /// Longest n-gram.
        max: usize,
    },
    /// Prompt lookup follows no match at all.
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
        /// Node of the tree.
        node: usize,
        /// Its token.
        token: TokenId,
        /// Size of the target's vocabulary.
        vocab_size: usize,
    },
    /// The target's logits hold NaN or infinity where a token was to be chosen.
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
    #[error("the prompt has {prompt_tokens} tokens, but prompt and answer share {context_len}")]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// The target's context.
        context_len: usize,
    },
    /// The target returned another number of logits rows than its contract says.
    #[error("the target returned {found} rows of logits, expected {expected}")]
    LogitsRows {
        /// Rows expected.
        expected: usize,
        /// Rows found.
        found: usize,
    },
    /// The target's cache has another length than its contract says.
    #[error("the target's cache holds {found} rows after {after}, expected {expected}")]
    CacheLength {
        /// What was done last.
        after: &'static str,
        /// Rows expected.
        expected: usize,
        /// Rows found.
        found: usize,
    },
    /// The grammar of the answer cannot tell which tokens may come.
    #[error("the grammar of the answer failed")]
    Constraint(#[source] BoxError),
    /// The acceptance rule returned a path that does not lead down from the root.
    #[error("the acceptance rule returned a path that is not a root path of the tree")]
    InvalidVerdict,
    /// A plug-in panicked.
    #[error(transparent)]
    Panicked(#[from] Panicked),
    /// The session was asked for more after it had failed.
    #[error("the session cannot go on after an error")]
    SessionFailed,
}

impl DecodeError {
    /// The error of choosing a token in `cycle`.
    pub(crate) fn from_logits(error: LogitsError, cycle: usize) -> Self {
        match error {
            LogitsError::NonFinite { row } => Self::NonFiniteLogits { cycle, row },
            LogitsError::Device(error) => Self::Target(error),
            LogitsError::Constraint(error) => Self::Constraint(error),
        }
    }
}
