//! Events and results of answers.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use vispec_core::{BoxError, GenerationStats, SpeculationReason};
use vispec_grammar::GrammarError;

/// The text that one token made final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The text, never empty.
    pub text: String,
    /// Whether the token was drafted. Text that was held back belongs to the token that released
    /// it.
    pub drafted: bool,
}

/// Log-probabilities of a token under the target, before penalties, biases and temperature.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogProbs {
    /// Text of the token; U+FFFD stands for an incomplete character.
    pub token: String,
    /// Natural logarithm of the token's probability.
    pub log_prob: f32,
    /// The most likely tokens with their log-probabilities, best first.
    pub top: Vec<(String, f32)>,
}

/// The result of one decoding cycle. The first token, which the prefill yields, counts as a cycle
/// too.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AnswerCycle {
    /// Number of tokens emitted; 0 if this only releases text that was held back.
    pub tokens: usize,
    /// Number of draft tokens among the emitted ones.
    pub accepted: usize,
    /// Number of verified nodes, root included; 0 for the prefill.
    pub nodes: usize,
    /// Pieces of text in order; the pieces of all cycles joined are the answer.
    pub pieces: Vec<Piece>,
    /// One entry per emitted token, if the request asks for log-probabilities.
    pub log_probs: Vec<TokenLogProbs>,
}

impl AnswerCycle {
    /// Returns the text of the cycle.
    #[must_use]
    pub fn text(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for AnswerCycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pieces
            .iter()
            .try_for_each(|piece| f.write_str(&piece.text))
    }
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerEnd {
    /// An end-of-sequence token or a stop string.
    Stop,
    /// The limit of new tokens or of the context.
    Length,
    /// It was cancelled, or its listener did not want the rest.
    Cancelled,
    /// The deadline. The text so far is kept; there may be none.
    Deadline,
}

/// Summary of a finished answer, whose text went to the listener.
#[derive(Debug, Clone)]
pub struct Answered {
    /// Why the answer ended.
    pub end: AnswerEnd,
    /// Number of tokens emitted, including the one that completed a stop string or ended the
    /// sequence.
    pub completion_tokens: usize,
    /// Counts and times of decoding.
    pub stats: GenerationStats,
    /// Reasons why the answer was not drafted, or was drafted with restrictions; empty if there
    /// were none.
    pub speculation: Vec<SpeculationReason>,
    /// Time spent on image decoding, chat template and tokenizer.
    pub preprocess: Duration,
    /// Time spent in the vision tower.
    pub vision: Duration,
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AnswerError {
    /// The prompt cannot be answered; the message is for the client.
    #[error("{message}")]
    Refused {
        /// Explanation for the client.
        message: String,
        /// Machine-readable error code.
        code: &'static str,
    },
    /// The answer could need more memory than all answers together may use.
    #[error(
        "prompt and answer may take {tokens} tokens, which need {needed} bytes, but the memory \
         budget of all answers is {budget} bytes"
    )]
    TooLarge {
        /// Maximum number of tokens of prompt and answer.
        tokens: usize,
        /// Number of bytes that these tokens may need.
        needed: usize,
        /// Number of bytes available to all answers.
        budget: usize,
    },
    /// Drafting is required, but there is no drafter.
    #[error("speculation is required, but {}", reason.because())]
    SpeculationUnavailable {
        /// Why drafting is unavailable.
        reason: SpeculationReason,
    },
    /// Evaluating the grammar of the answer exceeded its limits.
    #[error(transparent)]
    GrammarTooComplex(GrammarError),
    /// The queue is full. A waiting request that a request of another client displaces gets this
    /// error as well.
    #[error("the queue is full: {waiting} requests are waiting")]
    Busy {
        /// Number of waiting requests.
        waiting: usize,
        /// Estimated time until a place becomes free.
        retry_after: Duration,
    },
    /// The engine accepts no more requests, or ended this one because it is shutting down.
    #[error("the engine is shutting down")]
    ShutDown,
    /// The model failed; the cause is for the operator only.
    #[error("the model failed")]
    Failed(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

impl AnswerError {
    /// Creates the error for a failure of the model by `cause`.
    pub fn failed(cause: impl Into<BoxError>) -> Self {
        Self::Failed(Arc::from(cause.into()))
    }
}

/// Receives the events of an answer on the thread that computes all answers, so a slow listener
/// delays the others. A listener that panics ends only its own answer.
pub trait AnswerListener {
    /// Called when the prompt, which has `prompt_tokens` tokens, is ready. `Break` ends the answer
    /// before it starts.
    fn on_start(&mut self, prompt_tokens: usize) -> ControlFlow<()> {
        let _ = prompt_tokens;
        ControlFlow::Continue(())
    }

    /// Called after each cycle. `Break` ends the answer.
    fn on_cycle(&mut self, cycle: AnswerCycle) -> ControlFlow<()>;

    /// Called exactly once, after which no other call follows. With [`AnswerError::Refused`],
    /// [`AnswerError::TooLarge`] and [`AnswerError::SpeculationUnavailable`],
    /// [`on_start`](Self::on_start) was not called.
    fn on_end(&mut self, outcome: Result<Answered, AnswerError>);
}
