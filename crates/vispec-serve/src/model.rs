//! The server's interface to the model that answers requests.

use vispec::{
    AnswerError, AnswerListener, AnswerPrompt, Engine, KeptConversations, KeptImages,
    SchedulerFigures, Submission, SubmissionHandle, SuffixStoreUsage,
};

/// Answers requests, several at a time.
///
/// The text must be a function of the request alone. Whatever an implementation keeps between
/// requests, such as caches of conversations, and whatever it computes at the same time, may change
/// how fast an answer comes but never its text.
pub trait AnswerModel: Send + Sync {
    /// Name that clients see and request.
    fn id(&self) -> &str;

    /// Queues a request. It has one answer for each listener, with consecutive seeds.
    /// Returns immediately; dropping the handle has the effect that its documentation describes.
    ///
    /// # Errors
    /// [`AnswerError::Busy`] if the queue is full. Errors in the request itself are reported to the
    /// listeners: [`AnswerError::Refused`], [`AnswerError::TooLarge`] and
    /// [`AnswerError::SpeculationUnavailable`] come before [`AnswerListener::on_start`].
    fn submit(
        &self,
        submission: Submission,
        listeners: Vec<Box<dyn AnswerListener + Send>>,
    ) -> Result<SubmissionHandle, AnswerError>;

    /// Maximum number of tokens of prompt and answer together, if known.
    fn context_len(&self) -> Option<usize> {
        None
    }

    /// Returns the tokens of a prompt without images; blocks meanwhile.
    ///
    /// # Errors
    /// [`AnswerError::Refused`] for a prompt that is invalid or too long, or if the model does not
    /// support this.
    fn tokenize(&self, prompt: &AnswerPrompt) -> Result<Vec<u32>, AnswerError> {
        let _ = prompt;
        Err(untold())
    }

    /// Returns the text of tokens.
    ///
    /// # Errors
    /// Same as [`tokenize`](Self::tokenize).
    fn detokenize(&self, tokens: &[u32]) -> Result<String, AnswerError> {
        let _ = tokens;
        Err(untold())
    }

    /// Returns figures about running and waiting requests, for the metrics.
    fn scheduler_figures(&self) -> SchedulerFigures {
        SchedulerFigures::default()
    }

    /// Returns figures about kept conversations, for the metrics.
    fn kept_conversations(&self) -> KeptConversations {
        KeptConversations::default()
    }

    /// Returns figures about kept images, for the metrics.
    fn kept_images(&self) -> KeptImages {
        KeptImages::default()
    }

    /// Limits the memory of kept images from now on: what requests leave of the memory
    /// that both share. Called often, while a lock is held.
    fn limit_kept_images(&self, _bytes: usize) {}

    /// Returns figures about earlier answers kept for drafting, for the metrics.
    fn earlier_answers(&self) -> SuffixStoreUsage {
        SuffixStoreUsage::default()
    }
}

fn untold() -> AnswerError {
    AnswerError::Refused {
        message: "this model does not support tokenization".to_owned(),
        code: "unsupported_value",
    }
}

/// An [`Engine`] together with the name that clients see.
#[derive(Debug, Clone)]
pub struct EngineModel {
    /// Name that clients see and request.
    pub id: String,
    /// Target, draft and kept conversations.
    pub engine: Engine,
}

impl AnswerModel for EngineModel {
    fn id(&self) -> &str {
        &self.id
    }

    fn submit(
        &self,
        submission: Submission,
        listeners: Vec<Box<dyn AnswerListener + Send>>,
    ) -> Result<SubmissionHandle, AnswerError> {
        self.engine.submit_choices(submission, listeners)
    }

    fn context_len(&self) -> Option<usize> {
        Some(self.engine.context_len())
    }

    fn tokenize(&self, prompt: &AnswerPrompt) -> Result<Vec<u32>, AnswerError> {
        self.engine.tokenize(prompt)
    }

    fn detokenize(&self, tokens: &[u32]) -> Result<String, AnswerError> {
        self.engine.detokenize(tokens)
    }

    fn scheduler_figures(&self) -> SchedulerFigures {
        self.engine.scheduler_figures()
    }

    fn kept_conversations(&self) -> KeptConversations {
        self.engine.kept_conversations()
    }

    fn kept_images(&self) -> KeptImages {
        self.engine.kept_images()
    }

    fn limit_kept_images(&self, bytes: usize) {
        self.engine.limit_kept_images(bytes);
    }

    fn earlier_answers(&self) -> SuffixStoreUsage {
        self.engine.earlier_answers()
    }
}
