//! A loaded target and draft that answers.

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
    /// Element type of keys and values.
    pub kv: KvPrecision,
    /// Rows that passes of the target are padded to on a GPU, so that speculation changes nothing in
    /// any dtype.
    pub padded_passes: Option<NonZeroUsize>,
    /// How tokens are drafted, if not in the way that the draft is for.
    pub method: Option<Method>,
    /// What numbers of layers in the config of an EAGLE-3 draft mean.
    pub draft_layer_ids: LayerIds,
    /// How an EAGLE-3 draft reads prompts.
    pub draft_reading: DraftReading,
    /// How large draft trees are.
    pub tree: TreeChoice,
    /// A Jinja template for chats in place of that of the checkpoint.
    pub chat_template: Option<PathBuf>,
    /// Whether downloads draw progress bars on stderr.
    pub progress: DownloadProgress,
    /// What does not depend on the models.
    pub settings: EngineSettings,
}

impl Default for LoadOptions {
    /// The CPU, the element type on disk, trees that pay by times measured now, silence.
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
    /// Where the costs that trees are sized by are kept, so that costs which turn out to be wrong are
    /// measured again by the next program.
    pub calibration: CalibrationPlace,
}

/// What an engine keeps, and how much it does at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct EngineSettings {
    /// How image files are read.
    pub image_options: ImageOptions,
    /// Bytes for conversations that may go on; 0 keeps nothing.
    pub conversation_memory: usize,
    /// Bytes for what the target reads for images, so that files that come again are neither decoded
    /// nor encoded; 0 keeps nothing.
    pub image_memory: usize,
    /// Bytes for what earlier answers said, of which drafters with lookup propose what followed the
    /// last tokens; 0 keeps nothing.
    pub suffix_memory: usize,
    /// How much runs and waits at a time.
    pub scheduler: SchedulerOptions,
}

impl Default for EngineSettings {
    /// 1 GiB for conversations, 256 MiB for images, 64 MiB (4 million tokens) for what earlier answers
    /// said, eight answers at a time.
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

/// A target, its draft, what is kept of conversations, and the threads that answer. Clones share all
/// of it; with the last one, answers that run or wait end.
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    loaded: Arc<Loaded>,
    scheduler: Scheduler,
}

/// What answers are made of.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) models: vispec_models::Engine,
    pub(crate) drafting: DraftingSettings,
    pub(crate) settings: EngineSettings,
    pub(crate) conversations: ConversationStore,
    pub(crate) images: ImageStore,
    pub(crate) grammars: Grammars,
    /// What earlier answers said, if that is kept.
    pub(crate) earlier_answers: Option<Arc<SuffixStore>>,
}

impl Engine {
    /// Loads a target and a draft, each a directory or, with the feature `hub`, an id on the
    /// Hugging Face hub.
    ///
    /// # Errors
    /// Any error of [`resolve_checkpoint`], of loading, and of measuring what passes cost;
    /// [`ModelError::DraftKind`] if the draft is not for the method, or is to read prompts in a way of
    /// EAGLE-3 and is of another kind.
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
        // A draft that is for another method is found out now and not with the first question.
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

    /// Takes models that are loaded.
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

    /// The models, for what this type has no method for.
    #[must_use]
    pub fn models(&self) -> &vispec_models::Engine {
        &self.inner.loaded.models
    }

    /// How the models draft.
    #[must_use]
    pub fn drafting(&self) -> &DraftingSettings {
        &self.inner.loaded.drafting
    }

    /// What is kept of conversations at the moment.
    #[must_use]
    pub fn kept_conversations(&self) -> KeptConversations {
        self.inner.loaded.conversations.usage()
    }

    /// What is kept of images at the moment, and what it has been good for.
    #[must_use]
    pub fn kept_images(&self) -> KeptImages {
        self.inner.loaded.images.usage()
    }

    /// Keeps at most so many bytes for images from now on, and at most as many as the settings say:
    /// for callers who have one budget for this and other things.
    pub fn limit_kept_images(&self, bytes: usize) {
        let Loaded {
            images, settings, ..
        } = &*self.inner.loaded;
        images.limit(bytes.min(settings.image_memory));
    }

    /// What is kept of earlier answers for drafts, and what it has been good for.
    #[must_use]
    pub fn earlier_answers(&self) -> SuffixStoreUsage {
        let store = self.inner.loaded.earlier_answers.as_ref();
        store.map_or_else(SuffixStoreUsage::default, |store| store.usage())
    }

    /// Answers a chat greedily with at most 512 tokens.
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

    /// Answers a request beside the others that run. What is wrong with the request is told by the
    /// answer.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn start(&self, submission: impl Into<Submission>) -> Result<Answer, AnswerError> {
        Answer::start(self, submission.into())
    }

    /// Answers a request and waits for the end. `tell` hears of each cycle; if it breaks, the answer
    /// ends, maybe some cycles later.
    ///
    /// # Errors
    /// Those of [`submit`](Self::submit) and of the answer.
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

    /// Puts a request in line. `listener` is told of the answer, in another thread.
    ///
    /// # Errors
    /// [`AnswerError::Busy`] if as many wait as may, [`AnswerError::ShutDown`] after
    /// [`stop`](Self::stop), [`AnswerError::Failed`] if no thread can be started. All other errors
    /// are told to the listener.
    pub fn submit(
        &self,
        submission: impl Into<Submission>,
        listener: Box<dyn AnswerListener + Send>,
    ) -> Result<SubmissionHandle, AnswerError> {
        self.submit_choices(submission, vec![listener])
    }

    /// [`submit`](Self::submit) for several answers to one request, one for each listener, whose
    /// seeds count up from that of the request. They share the prompt, and run side by side as far
    /// as there is room; the handle is for all of them.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub fn submit_choices(
        &self,
        submission: impl Into<Submission>,
        listeners: Vec<Box<dyn AnswerListener + Send>>,
    ) -> Result<SubmissionHandle, AnswerError> {
        let Inner { loaded, scheduler } = &*self.inner;
        scheduler.submit(loaded, submission.into(), listeners)
    }

    /// Most tokens of prompt and answer together.
    #[must_use]
    pub fn context_len(&self) -> usize {
        self.models().target().context_len()
    }

    /// The tokens of a prompt without images, as the model would read it.
    ///
    /// # Errors
    /// [`AnswerError::Refused`] if it is too long, has images or cannot be rendered.
    pub fn tokenize(&self, prompt: &AnswerPrompt) -> Result<Vec<u32>, AnswerError> {
        let processor = self.models().processor();
        let prepared = match prompt {
            AnswerPrompt::Chat { messages, .. } => processor.prepare(messages, &[]),
            AnswerPrompt::Text(text) => processor.prepare_text(text),
        };
        let prepared = prepared.map_err(|error| model_error(error.into()))?;
        Ok(prepared.token_ids)
    }

    /// The text of tokens, special ones written out.
    ///
    /// # Errors
    /// [`AnswerError::Refused`] for tokens that cannot be decoded.
    pub fn detokenize(&self, tokens: &[TokenId]) -> Result<String, AnswerError> {
        let tokenizer = self.models().processor().tokenizer();
        let text = tokenizer.decode(tokens, SpecialText::Keep);
        text.map_err(|error| model_error(error.into()))
    }

    /// Takes no more requests and ends those that run or wait with [`AnswerError::ShutDown`].
    pub fn stop(&self) {
        self.inner.scheduler.stop();
    }

    /// What runs and waits at the moment.
    #[must_use]
    pub fn scheduler_figures(&self) -> SchedulerFigures {
        self.inner.scheduler.figures()
    }
}
