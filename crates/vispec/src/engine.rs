//! The engine: a loaded target and draft that answer requests.

use std::ops::ControlFlow;
use std::sync::Arc;

use vispec_core::{
    AutoTree, SuffixStore, SuffixStoreUsage, TargetModel as _, TokenId, TreeShape, TreeSize,
};
use vispec_models::{
    CalibrationPlace, ConversationStore, DraftVocab, EngineOptions, ImageStore, KeptConversations,
    KeptImages, Method, ModelError, calibrate, resolve_checkpoint,
};
use vispec_processor::{DecodedImage, Messages, SpecialText};

use crate::answer::{AnswerCycle, AnswerError, AnswerListener, Answered};
use crate::grammars::Grammars;
use crate::loaded::Loaded;
use crate::options::{DraftingSettings, EngineSettings, LoadOptions, TreeChoice};
use crate::request::{AnswerPrompt, AnswerRequest};
use crate::running::Answer;
use crate::scheduler::{Scheduler, SchedulerFigures, model_error};
use crate::submission::{Submission, SubmissionHandle};

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

    /// Returns the current usage of the image store and its number of hits.
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

    /// Returns the current usage of the store of earlier answers and how often it helped.
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
