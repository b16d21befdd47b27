//! What answers requests, as the server sees it.

use vispec::{
    AnswerError, AnswerListener, AnswerPrompt, Engine, KeptConversations, KeptImages,
    SchedulerFigures, Submission, SubmissionHandle, SuffixStoreUsage,
};

/// Answers requests, several at a time.
///
/// The text must be a function of the request alone. Whatever an implementation keeps between
/// requests, such as caches of conversations, and whatever it computes at the same time, may change
/// how fast an answer comes and never which.
pub trait AnswerModel: Send + Sync {
    /// Name that clients see and ask for.
    fn id(&self) -> &str;

    /// Puts a request in line, which has one answer for each listener, with seeds that count up.
    /// Returns at once; what the handle says of dropping it holds here, too.
    ///
    /// # Errors
    /// [`AnswerError::Busy`] if as many wait as may. What is wrong with the request is told to the
    /// listeners, [`AnswerError::Refused`], [`AnswerError::TooLarge`] and
    /// [`AnswerError::SpeculationUnavailable`] before
    /// [`AnswerListener::on_start`].
    fn submit(
        &self,
        submission: Submission,
        listeners: Vec<Box<dyn AnswerListener + Send>>,
    ) -> Result<SubmissionHandle, AnswerError>;

    /// Most tokens of prompt and answer together, if that is known.
    fn context_len(&self) -> Option<usize> {
        None
    }

    /// The tokens of a prompt without images; blocks while it counts.
    ///
    /// # Errors
    /// [`AnswerError::Refused`] for a prompt that is too long or makes no sense, or if the model
    /// does not tell.
    fn tokenize(&self, prompt: &AnswerPrompt) -> Result<Vec<u32>, AnswerError> {
        let _ = prompt;
        Err(untold())
    }

    /// The text of tokens.
    ///
    /// # Errors
    /// As [`tokenize`](Self::tokenize).
    fn detokenize(&self, tokens: &[u32]) -> Result<String, AnswerError> {
        let _ = tokens;
        Err(untold())
    }

    /// What runs and waits at the moment, for the metrics.
    fn scheduler_figures(&self) -> SchedulerFigures {
        SchedulerFigures::default()
    }

    /// What is kept of conversations at the moment, for the metrics.
    fn kept_conversations(&self) -> KeptConversations {
        KeptConversations::default()
    }

    /// What is kept of images at the moment, for the metrics.
    fn kept_images(&self) -> KeptImages {
        KeptImages::default()
    }

    /// Keeps at most so many bytes of images from now on: those that requests leave of the memory
    /// that both share. Called often, with a lock held.
    fn limit_kept_images(&self, _bytes: usize) {}

    /// What is kept of earlier answers for drafts, for the metrics.
    fn earlier_answers(&self) -> SuffixStoreUsage {
        SuffixStoreUsage::default()
    }
}

fn untold() -> AnswerError {
    AnswerError::Refused {
        message: "this model does not tell its tokens".to_owned(),
        code: "unsupported_value",
    }
}

/// An [`Engine`] with the name that clients see.
#[derive(Debug, Clone)]
pub struct EngineModel {
    /// Name that clients see and ask for.
    pub id: String,
    /// Target, draft and what is kept of conversations.
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
