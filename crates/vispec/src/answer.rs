//! Answers, as they grow and when they have ended.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use vispec_core::{BoxError, GenerationStats, SpeculationReason};
use vispec_grammar::GrammarError;

/// Text that became certain with one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The text, never empty.
    pub text: String,
    /// Whether the token was drafted. Text that was held back counts with the token that released
    /// it.
    pub drafted: bool,
}

/// What the target thought of a token, before penalties, biases and temperature.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogProbs {
    /// Text of the token; a token that is part of a character has U+FFFD.
    pub token: String,
    /// Natural logarithm of its probability.
    pub log_prob: f32,
    /// The most likely tokens with theirs, best first.
    pub top: Vec<(String, f32)>,
}

/// What one cycle of decoding brought; the first token, which the prefill gives, is a cycle too.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AnswerCycle {
    /// Tokens emitted; 0 if this is only text that was held back.
    pub tokens: usize,
    /// Draft tokens among the emitted ones.
    pub accepted: usize,
    /// Nodes that were verified, the root included; 0 for the prefill.
    pub nodes: usize,
    /// Text in order; joined over all cycles it is the answer.
    pub pieces: Vec<Piece>,
    /// One entry for each token emitted, if the request asks for them.
    pub log_probs: Vec<TokenLogProbs>,
}

impl AnswerCycle {
    /// The text of the cycle.
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
    /// With an end-of-sequence token or before a stop string.
    Stop,
    /// At the limit of new tokens or of the context.
    Length,
    /// Because nobody wants the rest.
    Cancelled,
    /// At its deadline, with what it had said until then; maybe before its first token.
    Deadline,
}

/// A finished answer; its text went to the listener.
#[derive(Debug, Clone)]
pub struct Answered {
    /// Why it ended.
    pub end: AnswerEnd,
    /// Tokens emitted, up to and with the one that completed a stop string or ended the sequence.
    pub completion_tokens: usize,
    /// Counts and times of decoding.
    pub stats: GenerationStats,
    /// Why it was not drafted, or otherwise than it could have been; empty if nothing stood in the
    /// way.
    pub speculation: Vec<SpeculationReason>,
    /// Time in decoding of images, chat template and tokenizer.
    pub preprocess: Duration,
    /// Time in the vision tower.
    pub vision: Duration,
}

/// Why there is no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AnswerError {
    /// The prompt cannot be answered; the message is for the client.
    #[error("{message}")]
    Refused {
        /// What is wrong with it.
        message: String,
        /// Short name for programs.
        code: &'static str,
    },
    /// The answer could need more memory than there is for all answers together.
    #[error(
        "prompt and answer may take {tokens} tokens, which need {needed} bytes, but all answers \
         together have {budget}"
    )]
    TooLarge {
        /// Tokens of the prompt and, at most, of the answer.
        tokens: usize,
        /// Bytes that they may need.
        needed: usize,
        /// Bytes that there are.
        budget: usize,
    },
    /// Drafting is required, and nothing can draft.
    #[error("speculation is required, but {}", reason.because())]
    SpeculationUnavailable {
        /// Why not.
        reason: SpeculationReason,
    },
    /// Following the grammar of the answer became too much work.
    #[error(transparent)]
    GrammarTooComplex(GrammarError),
    /// As many requests wait as may.
    #[error("{waiting} requests are waiting, and no more may")]
    Busy {
        /// How many they are.
        waiting: usize,
        /// When there may be a place.
        retry_after: Duration,
    },
    /// The engine takes no more requests, or ended this one because it shuts down.
    #[error("the engine shuts down")]
    ShutDown,
    /// The model failed; the cause is for the operator only.
    #[error("the model failed")]
    Failed(#[source] Arc<dyn std::error::Error + Send + Sync>),
}

impl AnswerError {
    /// The model failed by `cause`.
    pub fn failed(cause: impl Into<BoxError>) -> Self {
        Self::Failed(Arc::from(cause.into()))
    }
}

/// Is told of an answer while it grows, in the thread that computes all answers: what takes long
/// holds up the others. One that panics ends its own answer only.
pub trait AnswerListener {
    /// The prompt is in order and has so many tokens; `Break` ends the answer before it starts.
    fn on_start(&mut self, prompt_tokens: usize) -> ControlFlow<()> {
        let _ = prompt_tokens;
        ControlFlow::Continue(())
    }

    /// A cycle is done; `Break` ends the answer.
    fn on_cycle(&mut self, cycle: AnswerCycle) -> ControlFlow<()>;

    /// The answer has ended; told once, and nothing after it. [`AnswerError::Refused`],
    /// [`AnswerError::TooLarge`] and [`AnswerError::SpeculationUnavailable`] come before [`on_start`](Self::on_start).
    fn on_end(&mut self, outcome: Result<Answered, AnswerError>);
}
