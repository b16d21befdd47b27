//! The engine: a loaded target and draft that answer requests.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use vispec_core::{
    AutoTree, SuffixStore, SuffixStoreUsage, TargetModel as _, TokenId, TreeShape, TreeSize,
};
use vispec_models::{
    CalibrationPlace, ConversationStore, DeviceSpec, DownloadProgress, DraftReading, DraftVocab,
    DtypeChoice, EngineOptions, ImageStore, KeptConversations, KeptImages, KvPrecision, LayerIds,
    Method, ModelError, calibrate, resolve_checkpoint,
};
use vispec_processor::{DecodedImage, ImageOptions, Messages, SpecialText};

use crate::answer::{AnswerCycle, AnswerError, AnswerListener, Answered};
use crate::grammars::Grammars;
use crate::request::{AnswerPrompt, AnswerRequest};
use crate::running::Answer;
use crate::scheduler::{Scheduler, SchedulerFigures, SchedulerOptions, model_error};
use crate::submission::{Submission, SubmissionHandle};

/// How large draft trees are.
#[derive(Debug, Clone, PartialEq)]
pub enum TreeChoice {
    /// The size that maximises speed according to the cost of passes on this machine. The costs are
    /// measured while the models are loaded, which takes a few passes, unless the calibration place
    /// already has them.
    Measured(CalibrationPlace),
    /// This size.
    Sized(TreeSize),
}

/// How to load models.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadOptions {
    /// Where to compute.
    pub device: DeviceSpec,
    /// Element type of the weights.
    pub dtype: DtypeChoice,
    /// Element type of keys and values.
    pub kv: KvPrecision,
    /// Number of rows to which passes of the target are padded on a GPU, so that speculation does
    /// not change the answer in any dtype.
    pub padded_passes: Option<NonZeroUsize>,
    /// How tokens are drafted, if not by the default method for the draft.
    pub method: Option<Method>,
    /// How the layer ids in the config of an EAGLE-3 draft are interpreted.
    pub draft_layer_ids: LayerIds,
    /// How an EAGLE-3 draft reads prompts.
    pub draft_reading: DraftReading,
    /// How large draft trees are.
    pub tree: TreeChoice,
    /// Jinja chat template that replaces the template of the checkpoint.
    pub chat_template: Option<PathBuf>,
    /// Whether downloads show progress bars on stderr.
    pub progress: DownloadProgress,
    /// Settings that do not depend on the models.
    pub settings: EngineSettings,
}

impl Default for LoadOptions {
    /// The CPU, the element type on disk, trees sized by costs that are measured while loading, no
    /// progress bars.
    fn default() -> Self {
        Self {
            device: DeviceSpec::Flex,
            dtype: DtypeChoice::Auto,
            kv: KvPrecision::Auto,
            padded_passes: None,
            method: None,
            draft_layer_ids: LayerIds::Auto,
            draft_reading: DraftReading::default(),
            tree: TreeChoice::Measured(CalibrationPlace::Nowhere),
            chat_template: None,
            progress: DownloadProgress::Silent,
            settings: EngineSettings::default(),
        }
    }
}

/// How loaded models draft.
#[derive(Debug, Clone, PartialEq)]
pub struct DraftingSettings {
    /// How tokens are drafted.
    pub method: Method,
    /// How large draft trees are.
    pub tree: TreeSize,
    /// Where the costs that determine tree sizes are stored. If they turn out to be wrong, the next
    /// program measures them again.
    pub calibration: CalibrationPlace,
}

/// Memory limits and scheduler options of an engine.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineSettings {
    /// Options for decoding image files.
    pub image_options: ImageOptions,
    /// Maximum number of bytes for conversations that may continue; 0 keeps nothing.
    pub conversation_memory: usize,
    /// Maximum number of bytes for encoded images, so that repeated files are neither decoded nor
    /// encoded again; 0 keeps nothing.
    pub image_memory: usize,
    /// Maximum number of bytes for the tokens of earlier answers, in which drafters with lookup
    /// search for continuations of the last tokens; 0 keeps nothing.
    pub suffix_memory: usize,
    /// Limits on running and waiting requests.
    pub scheduler: SchedulerOptions,
}

impl Default for EngineSettings {
    /// 1 GiB for conversations, 256 MiB for images, 64 MiB (4 million tokens) for earlier answers,
    /// eight answers at a time.
    fn default() -> Self {
        Self {
            image_options: ImageOptions::default(),
            conversation_memory: 1 << 30,
            image_memory: 256 << 20,
            suffix_memory: 64 << 20,
            scheduler: SchedulerOptions::default(),
        }
    }
}

/// A target, its draft, stored conversations, and the threads that compute answers. Clones share
/// all of it. Dropping the last clone ends all running and waiting answers.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    loaded: Arc<Loaded>,
    scheduler: Scheduler,
}

/// State that all answers share.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) models: vispec_models::Engine,
    pub(crate) drafting: DraftingSettings,
    pub(crate) settings: EngineSettings,
    pub(crate) conversations: ConversationStore,
    pub(crate) images: ImageStore,
    pub(crate) grammars: Grammars,
    /// Tokens of earlier answers, if they are kept.
    pub(crate) earlier_answers: Option<Arc<SuffixStore>>,
}

impl Engine {
    /// Loads a target and a draft. Each is a directory or, with the feature `hub`, an id on the
    /// Hugging Face hub.
    ///
    /// # Errors
    /// Returns the errors of [`resolve_checkpoint`], of loading, and of measuring costs;
    /// [`ModelError::DraftKind`] if the draft does not support the method, or if
    /// [`LoadOptions::draft_reading`] is an option of EAGLE-3 and the draft is of another kind.
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
            draft_layer_ids: options.draft_layer_ids,
            device: options.device.open()?,
            dtype: options.dtype,
            kv: options.kv,
        })?;
        let models = models.with_draft_reading(options.draft_reading)?;
        let models = match options.padded_passes {
            Some(rows) => models.with_padded_passes(rows)?,
            None => models,
        };
        let models = match &options.chat_template {
            Some(file) => models.with_chat_template(file)?,
            None => models,
        };
        let method = options.method.unwrap_or_else(|| match options.tree {
            TreeChoice::Sized(TreeSize::Fixed(_)) => models.default_method(),
            TreeChoice::Sized(TreeSize::Auto(_)) | TreeChoice::Measured(_) => {
                models.default_method().with_lookup()
            }
        });
        // Detect a draft for another method now and not with the first request.
        models.drafter(method, TreeShape::default())?;
        let nowhere = CalibrationPlace::Nowhere;
        let (tree, calibration) = match (options.tree, method) {
            (TreeChoice::Sized(size), _) => (size, nowhere),
            (TreeChoice::Measured(_), Method::None) => (TreeShape::default().into(), nowhere),
            (TreeChoice::Measured(place), _) => {
                let calibration = calibrate(&models, method, &place)?;
                (AutoTree::new(Arc::new(calibration.costs)).into(), place)
            }
        };
        let drafting = DraftingSettings {
            method,
            tree,
            calibration,
        };
        Ok(Self::new(models, drafting, options.settings))
    }

    /// Creates an engine from loaded models.
    #[must_use]
    pub fn new(
        models: vispec_models::Engine,
        drafting: DraftingSettings,
        settings: EngineSettings,
    ) -> Self {
        let conversations = ConversationStore::new(settings.conversation_memory);
        let scheduler = Scheduler::new(settings.scheduler.clone());
        let suffix_memory = Some(settings.suffix_memory);
        let suffix_memory = suffix_memory.filter(|&bytes| bytes > 0 && drafting.method.looks_up());
        let earlier_answers = suffix_memory.map(|bytes| Arc::new(SuffixStore::new(bytes)));
        let images = ImageStore::new(settings.image_memory);
        let loaded = Arc::new(Loaded {
            models,
            drafting,
            settings,
            conversations,
            images,
            grammars: Grammars::default(),
            earlier_answers,
        });
        Self {
            inner: Arc::new(Inner { loaded, scheduler }),
        }
    }

    /// Returns the models, for operations that this type does not offer.
    #[must_use]
    pub fn models(&self) -> &vispec_models::Engine {
        &self.inner.loaded.models
    }

    /// Returns how the models draft.
    #[must_use]
    pub fn drafting(&self) -> &DraftingSettings {
        &self.inner.loaded.drafting
    }

    /// Returns the current usage of the conversation store.
    #[must_use]
    pub fn kept_conversations(&self) -> KeptConversations {
        self.inner.loaded.conversations.usage()
    }

    /// Returns the current usage of the image store and how often it was of use.
    #[must_use]
    pub fn kept_images(&self) -> KeptImages {
        self.inner.loaded.images.usage()
    }

    /// Limits the image store to `bytes` from now on, but never to more than the settings allow.
    /// This is for callers that share one budget among several stores.
    pub fn limit_kept_images(&self, bytes: usize) {
        let Loaded {
            images, settings, ..
        } = &*self.inner.loaded;
        images.limit(bytes.min(settings.image_memory));
    }

    /// Returns the current usage of the store of earlier answers and how often it was of use.
    #[must_use]
    pub fn earlier_answers(&self) -> SuffixStoreUsage {
        let store = self.inner.loaded.earlier_answers.as_ref();
        store.map_or_else(SuffixStoreUsage::default, |store| store.usage())
    }

    /// Answers a chat with greedy decoding and at most 512 tokens.
    ///
    /// # Errors
    /// Same as [`start`](Self::start).
    pub fn generate(
        &self,
        messages: Messages,
        images: Vec<DecodedImage>,
    ) -> Result<Answer, AnswerError> {
        self.start(AnswerRequest::chat(messages, images))
    }

    /// Starts answering a request alongside those already running. The answer reports errors of the
    /// request itself.
    ///
    /// # Errors
    /// Same as [`submit`](Self::submit).
    pub fn start(&self, submission: impl Into<Submission>) -> Result<Answer, AnswerError> {
        Answer::start(self, submission.into())
    }

    /// Answers a request and waits for the end. `tell` is called with each cycle; if it returns
    /// `Break`, the answer ends, possibly some cycles later.
    ///
    /// # Errors
    /// Returns the errors of [`submit`](Self::submit) and of the answer.
    pub fn answer(
        &self,
        submission: impl Into<Submission>,
        tell: &mut dyn FnMut(AnswerCycle) -> ControlFlow<()>,
    ) -> Result<Answered, AnswerError> {
        let mut answer = self.start(submission)?;
        while let Some(cycle) = answer.next() {
            if tell(cycle?).is_break() {
                answer.cancel_handle().cancel();
            }
        }
        let answered = answer.answered().cloned();
        answered.ok_or_else(|| AnswerError::failed("the answer was lost"))
    }

    /// Queues a request. `listener` is notified of the answer on another thread.
    ///
    /// # Errors
    /// Returns [`AnswerError::Busy`] if the queue is full, [`AnswerError::ShutDown`] after
    /// [`stop`](Self::stop), [`AnswerError::Failed`] if no thread can be started. All other errors
    /// go to the listener.
    pub fn submit(
        &self,
        submission: impl Into<Submission>,
        listener: Box<dyn AnswerListener + Send>,
    ) -> Result<SubmissionHandle, AnswerError> {
        self.submit_choices(submission, vec![listener])
    }

    /// Like [`submit`](Self::submit), but produces several answers to one request, one per
    /// listener. Their seeds count up from the seed of the request. The answers share the prompt
    /// and run side by side as far as there is room. The handle controls all of them.
    ///
    /// # Errors
    /// Same as [`submit`](Self::submit).
    pub fn submit_choices(
        &self,
        submission: impl Into<Submission>,
        listeners: Vec<Box<dyn AnswerListener + Send>>,
    ) -> Result<SubmissionHandle, AnswerError> {
        let Inner { loaded, scheduler } = &*self.inner;
        scheduler.submit(loaded, submission.into(), listeners)
    }

    /// Returns the maximum number of tokens of prompt and answer together.
    #[must_use]
    pub fn context_len(&self) -> usize {
        self.models().target().context_len()
    }

    /// Returns the tokens of a prompt without images, as the model would read it.
    ///
    /// # Errors
    /// Returns [`AnswerError::Refused`] if the prompt is too long, has images or cannot be
    /// rendered.
    pub fn tokenize(&self, prompt: &AnswerPrompt) -> Result<Vec<u32>, AnswerError> {
        let processor = self.models().processor();
        let prepared = match prompt {
            AnswerPrompt::Chat { messages, .. } => processor.prepare(messages, &[]),
            AnswerPrompt::Text(text) => processor.prepare_text(text),
        };
        let prepared = prepared.map_err(|error| model_error(error.into()))?;
        Ok(prepared.token_ids)
    }

    /// Returns the text of tokens, with special tokens written out.
    ///
    /// # Errors
    /// Returns [`AnswerError::Refused`] for tokens that cannot be decoded.
    pub fn detokenize(&self, tokens: &[TokenId]) -> Result<String, AnswerError> {
        let tokenizer = self.models().processor().tokenizer();
        let text = tokenizer.decode(tokens, SpecialText::Keep);
        text.map_err(|error| model_error(error.into()))
    }

    /// Stops accepting requests and ends all running and waiting ones with
    /// [`AnswerError::ShutDown`].
    pub fn stop(&self) {
        self.inner.scheduler.stop();
    }

    /// Returns the current figures of the scheduler.
    #[must_use]
    pub fn scheduler_figures(&self) -> SchedulerFigures {
        self.inner.scheduler.figures()
    }
}
