//! A loaded target and draft that answers.

use std::sync::Arc;

use vispec_core::{AutoTree, TreeShape, TreeSize};
use vispec_models::{
    CalibrationPlace, ConversationStore, DeviceSpec, DownloadProgress, DraftVocab, DtypeChoice,
    EngineOptions, KeptConversations, KvPrecision, Method, ModelError, calibrate,
    resolve_checkpoint,
};
use vispec_processor::{DecodedImage, ImageLimits, Messages};

use crate::answer::{AnswerError, AnswerListener, Answered};
use crate::answering;
use crate::request::AnswerRequest;
use crate::running::Answer;

/// Memory for conversations that may go on, unless the caller says otherwise.
const CONVERSATION_MEMORY: usize = 1 << 30;

/// How large draft trees are.
#[derive(Debug, Clone, PartialEq)]
pub enum TreeChoice {
    /// As large as pays, going by what passes cost on this machine. That is measured while the
    /// models are loaded, which takes a few passes, unless the place has it from an earlier time.
    Measured(CalibrationPlace),
    /// This.
    Sized(TreeSize),
}

/// How to load models.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadOptions {
    /// Where to compute.
    pub device: DeviceSpec,
    /// Element type of the weights.
    pub dtype: DtypeChoice,
    /// How tokens are drafted, if not in the way that the draft is for.
    pub method: Option<Method>,
    /// How large draft trees are.
    pub tree: TreeChoice,
    /// How large images may be.
    pub image_limits: ImageLimits,
    /// Bytes for conversations that may go on; 0 keeps nothing.
    pub conversation_memory: usize,
    /// Whether downloads draw progress bars on stderr.
    pub progress: DownloadProgress,
}

impl Default for LoadOptions {
    /// The CPU, the element type on disk, trees that pay by times measured now, 1 GiB for
    /// conversations, silence.
    fn default() -> Self {
        Self {
            device: DeviceSpec::Flex,
            dtype: DtypeChoice::Auto,
            method: None,
            tree: TreeChoice::Measured(CalibrationPlace::Nowhere),
            image_limits: ImageLimits::default(),
            conversation_memory: CONVERSATION_MEMORY,
            progress: DownloadProgress::Silent,
        }
    }
}

/// What else answers depend on, for models that are loaded already.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineSettings {
    /// How tokens are drafted.
    pub method: Method,
    /// How large draft trees are.
    pub tree: TreeSize,
    /// How large images may be; checked before pixels are decoded.
    pub image_limits: ImageLimits,
    /// Bytes for conversations that may go on; 0 keeps nothing.
    pub conversation_memory: usize,
}

/// A target, its draft and what is kept of conversations. Clones share all of it.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) models: vispec_models::Engine,
    pub(crate) settings: EngineSettings,
    pub(crate) conversations: ConversationStore,
}

impl Engine {
    /// Loads a target and a draft, each a directory or, with the feature `hub`, an id on the
    /// Hugging Face hub.
    ///
    /// # Errors
    /// Any error of [`resolve_checkpoint`], of loading, and of measuring what passes cost;
    /// [`ModelError::DraftKind`] if the draft is not for the method.
    pub fn load(
        target: &str,
        draft: Option<&str>,
        options: LoadOptions,
    ) -> Result<Self, ModelError> {
        let place = |name| resolve_checkpoint(name, options.progress);
        let models = vispec_models::Engine::load(&EngineOptions {
            target: place(target)?,
            draft: draft.map(place).transpose()?,
            draft_vocab: DraftVocab::Auto,
            device: options.device.open()?,
            dtype: options.dtype,
            kv: KvPrecision::Auto,
        })?;
        let method = options.method.unwrap_or_else(|| models.default_method());
        // A draft that is for another method is found out now and not with the first question.
        models.drafter(method, TreeShape::default())?;
        let tree = match (options.tree, method) {
            (TreeChoice::Sized(size), _) => size,
            (TreeChoice::Measured(_), Method::None) => TreeShape::default().into(),
            (TreeChoice::Measured(place), _) => {
                let calibration = calibrate(&models, method, &place)?;
                AutoTree::new(Arc::new(calibration.costs)).into()
            }
        };
        Ok(Self::new(
            models,
            EngineSettings {
                method,
                tree,
                image_limits: options.image_limits,
                conversation_memory: options.conversation_memory,
            },
        ))
    }

    /// Takes models that are loaded.
    #[must_use]
    pub fn new(models: vispec_models::Engine, settings: EngineSettings) -> Self {
        let conversations = ConversationStore::new(settings.conversation_memory);
        let inner = Inner {
            models,
            settings,
            conversations,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// The models, for what this type has no method for.
    #[must_use]
    pub fn models(&self) -> &vispec_models::Engine {
        &self.inner.models
    }

    /// What answers depend on besides.
    #[must_use]
    pub fn settings(&self) -> &EngineSettings {
        &self.inner.settings
    }

    /// What is kept of conversations at the moment.
    #[must_use]
    pub fn kept_conversations(&self) -> KeptConversations {
        self.inner.conversations.usage()
    }

    /// Answers a chat greedily with at most 512 tokens, in a thread of its own.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn generate(
        &self,
        messages: Messages,
        images: Vec<DecodedImage>,
    ) -> Result<Answer, AnswerError> {
        self.start(AnswerRequest::chat(messages, images))
    }

    /// Answers a request in a thread of its own. What is wrong with the request is told by the
    /// answer.
    ///
    /// # Errors
    /// [`AnswerError::Failed`] if no thread can be started.
    pub fn start(&self, request: AnswerRequest) -> Result<Answer, AnswerError> {
        Answer::start(self.clone(), request)
    }

    /// Answers a request in this thread, and tells `listener` while the answer grows.
    ///
    /// # Errors
    /// [`AnswerError::Refused`] for prompts that cannot be answered, always before
    /// [`AnswerListener::on_start`]; [`AnswerError::Failed`] for everything else.
    pub fn answer(
        &self,
        request: &AnswerRequest,
        listener: &mut dyn AnswerListener,
    ) -> Result<Answered, AnswerError> {
        answering::answer(&self.inner, request, listener)
    }
}
