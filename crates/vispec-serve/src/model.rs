//! What answers requests, as the server sees it.

use std::ops::ControlFlow;
use std::time::Duration;

use vispec_core::{BoxError, GenerationStats, Sampler};
use vispec_processor::Messages;

/// What an answer goes on from.
#[derive(Debug, Clone, PartialEq)]
pub enum AnswerPrompt {
    /// A conversation for the chat template.
    Chat {
        /// Who said what.
        messages: Messages,
        /// Image files in the order of their places in the messages; not decoded yet.
        images: Vec<Vec<u8>>,
    },
    /// A text to continue as it is.
    Text(String),
}

/// Everything that the tokens of an answer depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct AnswerRequest {
    /// What it goes on from.
    pub prompt: AnswerPrompt,
    /// Most tokens to emit.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub sampler: Sampler,
    /// Drives sampling.
    pub seed: u64,
    /// Strings before which the answer ends.
    pub stop: Vec<String>,
}

/// Text that became certain with one token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The text, never empty.
    pub text: String,
    /// Whether the token was drafted. Text that was held back counts with the token that released
    /// it.
    pub drafted: bool,
}

/// What one cycle of decoding brought; the first token, which the prefill gives, is a cycle too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AnswerCycle {
    /// Draft tokens among the emitted ones.
    pub accepted: usize,
    /// Nodes that were verified, the root included; 0 for the prefill.
    pub nodes: usize,
    /// Text in order; joined over all cycles it is the answer.
    pub pieces: Vec<Piece>,
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
    /// Time in decoding of images, chat template and tokenizer.
    pub preprocess: Duration,
    /// Time in the vision tower.
    pub vision: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// The prompt cannot be answered; the message is for the client.
    #[error("{message}")]
    Refused {
        /// What is wrong with it.
        message: String,
        /// Short name for programs.
        code: &'static str,
    },
    /// The model failed; the cause is for the operator only.
    #[error("the model failed")]
    Failed(#[source] BoxError),
}

/// Is told of an answer while it grows.
pub trait AnswerListener {
    /// The prompt is in order and has so many tokens; `Break` ends the answer before it starts.
    fn on_start(&mut self, prompt_tokens: usize) -> ControlFlow<()>;

    /// A cycle is done; `Break` ends the answer.
    fn on_cycle(&mut self, cycle: AnswerCycle) -> ControlFlow<()>;
}

/// Answers requests, several at a time if the server is told to.
///
/// The text must be a function of the request alone. Whatever an implementation keeps between
/// requests, such as caches of conversations, may change how fast an answer comes and never which.
pub trait AnswerModel: Send + Sync {
    /// Name that clients see and ask for.
    fn id(&self) -> &str;

    /// Answers `request`. Blocks until the answer has ended.
    ///
    /// # Errors
    /// [`AnswerError::Refused`] for prompts that cannot be answered, always before
    /// [`AnswerListener::on_start`]; [`AnswerError::Failed`] for everything else.
    fn answer(
        &self,
        request: &AnswerRequest,
        listener: &mut dyn AnswerListener,
    ) -> Result<Answered, AnswerError>;
}
