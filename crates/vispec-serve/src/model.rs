//! What answers requests, as the server sees it.

use vispec::{AnswerError, AnswerListener, AnswerRequest, Answered, Engine, KeptConversations};

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

    /// What is kept of conversations at the moment, for the metrics.
    fn kept_conversations(&self) -> KeptConversations {
        KeptConversations::default()
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

    fn answer(
        &self,
        request: &AnswerRequest,
        listener: &mut dyn AnswerListener,
    ) -> Result<Answered, AnswerError> {
        self.engine.answer(request, listener)
    }

    fn kept_conversations(&self) -> KeptConversations {
        self.engine.kept_conversations()
    }
}
