//! A target, its inputs and, if there is one, its draft: what a program needs to answer prompts.

mod encoding;

use std::fmt;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use burn::tensor::Device;
use vispec_core::{
    BoxError, GenerationStats, NoDraft, Prompt as _, PromptLookupDrafter, Speculation,
    SpeculationReason, TargetModel as _, TreeSize,
};
use vispec_processor::Processor;

pub use self::encoding::ReadMedia;
use crate::conversations::ConversationStore;
use crate::draft::{AnyDrafter, Draft, DraftImages, DraftKind, DraftReading, DraftVocab, LayerIds};
use crate::error::ModelError;
use crate::nn::capacity_bound;
use crate::precision::{DtypeChoice, KvPrecision};
use crate::prompt::EncodedPrompt;
use crate::target::VlmTarget;
use crate::vlm_cache::VlmCache;

/// Ways to draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A vision-aware draft.
    Vispec,
    /// The draft network without vision.
    Eagle2,
    /// A network that reads several hidden states of the target.
    Eagle3,
    /// Independent heads.
    Medusa,
    /// A network, in whose trees prompt lookup competes with what it scores.
    Joined(DraftKind),
    /// Tokens that followed the same words earlier in the prompt or the answer; needs no model.
    PromptLookup,
    /// Plain decoding.
    None,
}

impl Method {
    /// The name that users type.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vispec => "vispec",
            Self::Eagle2 => "eagle2",
            Self::Eagle3 => "eagle3",
            Self::Medusa => "medusa",
            Self::Joined(DraftKind::Vispec) => "vispec+lookup",
            Self::Joined(DraftKind::Eagle2) => "eagle2+lookup",
            Self::Joined(DraftKind::Eagle3) => "eagle3+lookup",
            Self::Joined(DraftKind::Medusa) => "medusa+lookup",
            Self::PromptLookup => "prompt-lookup",
            Self::None => "none",
        }
    }

    /// The kind of draft that it needs, if it needs one.
    #[must_use]
    pub fn network(self) -> Option<DraftKind> {
        match self {
            Self::Vispec => Some(DraftKind::Vispec),
            Self::Eagle2 => Some(DraftKind::Eagle2),
            Self::Eagle3 => Some(DraftKind::Eagle3),
            Self::Medusa => Some(DraftKind::Medusa),
            Self::Joined(kind) => Some(kind),
            Self::PromptLookup | Self::None => None,
        }
    }

    /// Whether it proposes what followed the last tokens earlier.
    #[must_use]
    pub fn looks_up(self) -> bool {
        matches!(self, Self::Joined(_) | Self::PromptLookup)
    }

    /// The same with prompt lookup beside the network, if it has one.
    #[must_use]
    pub fn with_lookup(self) -> Self {
        self.network().map_or(self, Self::Joined)
    }
}

impl From<DraftKind> for Method {
    fn from(kind: DraftKind) -> Self {
        match kind {
            DraftKind::Vispec => Self::Vispec,
            DraftKind::Eagle2 => Self::Eagle2,
            DraftKind::Eagle3 => Self::Eagle3,
            DraftKind::Medusa => Self::Medusa,
        }
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [
            Self::Vispec,
            Self::Eagle2,
            Self::Eagle3,
            Self::Medusa,
            Self::Joined(DraftKind::Vispec),
            Self::Joined(DraftKind::Eagle2),
            Self::Joined(DraftKind::Eagle3),
            Self::Joined(DraftKind::Medusa),
            Self::PromptLookup,
            Self::None,
        ]
        .into_iter()
        .find(|method| method.as_str() == name)
        .ok_or_else(|| {
            format!(
                "unknown method {name:?}, expected vispec, eagle2, eagle3, medusa, each also with \
                 +lookup, prompt-lookup or none"
            )
        })
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What to load, and where to.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Directory of the target's checkpoint.
    pub target: PathBuf,
    /// Directory of the draft's checkpoint.
    pub draft: Option<PathBuf>,
    /// Tokens that the draft chooses from.
    pub draft_vocab: DraftVocab,
    /// What numbers of layers in the config of an EAGLE-3 draft mean.
    pub draft_layer_ids: LayerIds,
    /// Where to compute.
    pub device: Device,
    /// Element type of the weights.
    pub dtype: DtypeChoice,
    /// Element type of the target's cached keys and values.
    pub kv: KvPrecision,
}

/// A loaded target with its processor and, if there is one, its draft.
#[derive(Debug)]
pub struct Engine {
    target: VlmTarget,
    processor: Processor,
    draft: Option<Draft>,
    draft_dir: Option<PathBuf>,
}

/// How long the steps before the prefill took.
#[derive(Debug, Clone, Copy, Default)]
pub struct EncodeTimes {
    /// Image processing, chat template and tokenizer.
    pub preprocess: Duration,
    /// Vision tower and embedding.
    pub vision: Duration,
}

impl Engine {
    /// Loads target, processor and draft.
    ///
    /// # Errors
    /// Any error of [`VlmTarget::load`], [`Processor::from_dir`] and [`Draft::load`].
    pub fn load(options: &EngineOptions) -> Result<Self, ModelError> {
        // The cheap parts first: a checkpoint without a tokenizer fails before its weights load.
        let processor = Processor::from_dir(&options.target)?;
        let target = VlmTarget::load(&options.target, &options.device, options.dtype)?;
        let target = target.with_kv_precision(options.kv)?;
        let (draft, target) = match &options.draft {
            Some(dir) => {
                let draft = Draft::load_for(dir, &target.for_draft(), options.draft_layer_ids)?;
                let draft = draft.restricted(&options.draft_vocab, dir, &target)?;
                let target = target.with_features(draft.features())?;
                (Some(draft), target)
            }
            None => (None, target),
        };
        Ok(Self {
            target,
            processor,
            draft,
            draft_dir: options.draft.clone(),
        })
    }

    /// Pads passes of the target over trees and single tokens to `rows` rows, so that a token runs
    /// through the same kernels alone and in a tree: plain and speculative decoding then agree bit
    /// for bit where kernels are chosen by the number of rows. Sequences share a pass as far as
    /// their rows fit.
    ///
    /// # Errors
    /// [`ModelError::NotPadded`] if the layers do not run on a GPU: on the CPU a row has the same
    /// bits in every pass.
    pub fn with_padded_passes(mut self, rows: NonZeroUsize) -> Result<Self, ModelError> {
        self.target = self.target.with_padded_passes(rows)?;
        Ok(self)
    }

    /// Renders chats with the template in `file`, as [`Processor::with_chat_template`] does.
    ///
    /// # Errors
    /// Those of [`Processor::with_chat_template`].
    pub fn with_chat_template(mut self, file: &Path) -> Result<Self, ModelError> {
        self.processor = self.processor.with_chat_template(file)?;
        Ok(self)
    }

    /// Changes the limits of an image's area in pixels, as [`Processor::with_pixels`] does.
    ///
    /// # Errors
    /// Those of [`Processor::with_pixels`].
    pub fn with_pixels(
        mut self,
        min: Option<usize>,
        max: Option<usize>,
    ) -> Result<Self, ModelError> {
        self.processor = self.processor.with_pixels(min, max)?;
        Ok(self)
    }

    /// The same engine, whose EAGLE-3 draft reads prompts in another way.
    ///
    /// # Errors
    /// If the way is not the default: [`ModelError::DraftKind`] if the draft is not of EAGLE-3,
    /// [`ModelError::DraftMissing`] if there is none, and [`ModelError::DraftMismatch`] if it is to
    /// read the target's embeddings and has another hidden size.
    pub fn with_draft_reading(mut self, reading: DraftReading) -> Result<Self, ModelError> {
        self.draft = match (self.draft.take(), &self.draft_dir) {
            (Some(draft), Some(dir)) => Some(draft.with_reading(reading, dir, &self.target)?),
            _ if reading == DraftReading::default() => None,
            _ => {
                return Err(ModelError::DraftMissing {
                    method: DraftKind::Eagle3.as_str(),
                });
            }
        };
        Ok(self)
    }

    /// The target.
    #[must_use]
    pub fn target(&self) -> &VlmTarget {
        &self.target
    }

    /// The draft, if one was loaded.
    #[must_use]
    pub fn draft(&self) -> Option<&Draft> {
        self.draft.as_ref()
    }

    /// The draft, if one was loaded that `method` drafts with.
    #[must_use]
    pub fn draft_of(&self, method: Method) -> Option<&Draft> {
        self.draft()
            .filter(|draft| method.network() == Some(draft.kind()))
    }

    /// Directory of the draft's checkpoint, if one was loaded.
    #[must_use]
    pub(crate) fn draft_dir(&self) -> Option<&Path> {
        self.draft_dir.as_deref()
    }

    /// Tokenizer, chat template and image processor.
    #[must_use]
    pub fn processor(&self) -> &Processor {
        &self.processor
    }

    /// The method that fits what was loaded: the draft's kind, or plain decoding.
    #[must_use]
    pub fn default_method(&self) -> Method {
        self.draft
            .as_ref()
            .map_or(Method::None, |draft| draft.kind().into())
    }

    /// A drafter for one conversation.
    ///
    /// # Errors
    /// [`ModelError::DraftKind`] if the method is not that of the loaded draft,
    /// [`ModelError::DraftMissing`] if it needs one and none was loaded.
    pub fn drafter(
        &self,
        method: Method,
        size: impl Into<TreeSize>,
    ) -> Result<AnyDrafter, ModelError> {
        match (method, &self.draft) {
            (Method::None, _) => Ok(AnyDrafter::None(NoDraft)),
            (Method::PromptLookup, _) => Ok(AnyDrafter::PromptLookup(match size.into() {
                TreeSize::Fixed(_) => PromptLookupDrafter::default(),
                TreeSize::Auto(limits) => PromptLookupDrafter::auto(limits),
            })),
            (_, None) => Err(ModelError::DraftMissing {
                method: method.as_str(),
            }),
            (_, Some(draft)) if method.network() == Some(draft.kind()) => {
                let drafter = draft.drafter(size.into());
                Ok(match method {
                    Method::Joined(_) => drafter.with_lookup(),
                    _ => drafter,
                })
            }
            (_, Some(draft)) => Err(ModelError::DraftKind {
                found: draft.kind().as_str(),
                expected: method.as_str(),
            }),
        }
    }

    /// Why an answer to `prompt`, wanted so and drafted by `method`, was not drafted or drafted
    /// otherwise than it could have been; `stats` are its own.
    #[must_use]
    pub fn speculation_reasons(
        &self,
        (method, wanted): (Method, Speculation),
        prompt: &EncodedPrompt,
        stats: &GenerationStats,
    ) -> Vec<SpeculationReason> {
        if wanted == Speculation::Off {
            return vec![SpeculationReason::NotWanted];
        }
        if method == Method::None {
            return vec![SpeculationReason::NoDrafter];
        }
        let mut reasons = Vec::new();
        let images = self.draft_of(method).map(Draft::images);
        if images == Some(DraftImages::Placeholders) && !prompt.image_runs().is_empty() {
            reasons.push(SpeculationReason::ImagesUnseen);
        }
        reasons.extend(stats.mostly_idle().map(SpeculationReason::Idle));
        reasons
    }

    /// A cache for `prompt` that holds what is known of its beginning: from `running`, the cache of a
    /// generation that has read the same prompt, or from `store`.
    ///
    /// # Errors
    /// Any error of the device.
    pub fn cache_for(
        &self,
        prompt: &EncodedPrompt,
        store: &ConversationStore,
        running: Option<&VlmCache>,
    ) -> Result<VlmCache, BoxError> {
        // The last token has to be read anyway.
        let known = prompt.token_ids().len().saturating_sub(1);
        let copied = running.and_then(|cache| cache.beginning(known, self.target.features()));
        let cache = copied.or_else(|| store.cache_for(&self.target, prompt));
        match cache.or_else(|| self.target.resumable_cache()) {
            Some(cache) => Ok(cache),
            None => self.target.new_cache(),
        }
    }

    /// Most memory that a sequence of so many rows takes while it is decoded by `method`.
    #[must_use]
    pub fn sequence_bytes(&self, method: Method, rows: usize) -> usize {
        capacity_bound(rows).saturating_mul(self.row_bytes(method))
    }

    /// Memory of one row of a sequence that is decoded by `method`: keys and values of target and
    /// draft, hidden states and what the target reads for its token.
    #[must_use]
    pub fn row_bytes(&self, method: Method) -> usize {
        let draft = self.draft.as_ref();
        let draft = draft.filter(|draft| method.network() == Some(draft.kind()));
        let draft_row = draft.map_or(0, Draft::cache_bytes_per_row);
        let embedding = self.target.hidden() * self.target.precision().compute.size();
        // In the target's cache, and for the draft.
        let features = 2 * self.target.feature_bytes_per_row();
        let image = self.target.image_bytes_per_row();
        self.target.cache_bytes_per_row() + draft_row + embedding + image + features
    }
}
