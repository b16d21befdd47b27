//! The engine: a target with its processor and, optionally, its draft.

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

/// A drafting method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A draft network with a vision adaptor.
    Vispec,
    /// A draft network without a vision adaptor.
    Eagle2,
    /// A draft network that reads several hidden states of the target.
    Eagle3,
    /// Independent heads that each predict one later token.
    Medusa,
    /// A draft network combined with prompt lookup, whose proposals compete for places in the tree.
    Joined(DraftKind),
    /// Tokens that followed the same tokens earlier in the prompt or the answer; needs no draft
    /// model.
    PromptLookup,
    /// Plain decoding.
    None,
}

impl Method {
    /// Returns the method's name on the command line.
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

    /// Returns the kind of draft that the method needs, if it needs one.
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

    /// Returns whether the method uses prompt lookup.
    #[must_use]
    pub fn looks_up(self) -> bool {
        matches!(self, Self::Joined(_) | Self::PromptLookup)
    }

    /// Adds prompt lookup to the method, if it uses a network.
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

/// Options of [`Engine::load`].
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Directory of the target's checkpoint.
    pub target: PathBuf,
    /// Directory of the draft's checkpoint.
    pub draft: Option<PathBuf>,
    /// Vocabulary of the draft.
    pub draft_vocab: DraftVocab,
    /// How the layer ids in the config of an EAGLE-3 draft are interpreted.
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

/// Times of the steps before the prefill.
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
    /// Returns the errors of [`VlmTarget::load`], [`Processor::from_dir`] and [`Draft::load`].
    pub fn load(options: &EngineOptions) -> Result<Self, ModelError> {
        // Fast parts come first: a checkpoint without a tokenizer fails before its weights load.
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
    /// through the same kernels alone and in a tree. Plain and speculative decoding then agree bit
    /// for bit on devices that choose kernels by the number of rows. Sequences share a pass as long
    /// as their rows fit.
    ///
    /// # Errors
    /// Returns [`ModelError::NotPadded`] if the layers do not run on a GPU. On the CPU a row has
    /// the same bits in every pass anyway.
    pub fn with_padded_passes(mut self, rows: NonZeroUsize) -> Result<Self, ModelError> {
        self.target = self.target.with_padded_passes(rows)?;
        Ok(self)
    }

    /// Renders chats with the template in `file`; see [`Processor::with_chat_template`].
    ///
    /// # Errors
    /// Same as [`Processor::with_chat_template`].
    pub fn with_chat_template(mut self, file: &Path) -> Result<Self, ModelError> {
        self.processor = self.processor.with_chat_template(file)?;
        Ok(self)
    }

    /// Changes the limits of an image's area in pixels; see [`Processor::with_pixels`].
    ///
    /// # Errors
    /// Same as [`Processor::with_pixels`].
    pub fn with_pixels(
        mut self,
        min: Option<usize>,
        max: Option<usize>,
    ) -> Result<Self, ModelError> {
        self.processor = self.processor.with_pixels(min, max)?;
        Ok(self)
    }

    /// Changes how the EAGLE-3 draft reads prompts.
    ///
    /// # Errors
    /// Only if `reading` is not the default: [`ModelError::DraftKind`] if the draft is not of
    /// EAGLE-3, [`ModelError::DraftMissing`] if there is none, and [`ModelError::DraftMismatch`] if
    /// the draft should read the target's embeddings but has another hidden size.
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

    /// Returns the target.
    #[must_use]
    pub fn target(&self) -> &VlmTarget {
        &self.target
    }

    /// Returns the draft, if one was loaded.
    #[must_use]
    pub fn draft(&self) -> Option<&Draft> {
        self.draft.as_ref()
    }

    /// Returns the draft, if it is the one that `method` needs.
    #[must_use]
    pub fn draft_of(&self, method: Method) -> Option<&Draft> {
        self.draft()
            .filter(|draft| method.network() == Some(draft.kind()))
    }

    /// Returns the directory of the draft's checkpoint, if one was loaded.
    pub(crate) fn draft_dir(&self) -> Option<&Path> {
        self.draft_dir.as_deref()
    }

    /// Returns the processor: tokenizer, chat template and image processor.
    #[must_use]
    pub fn processor(&self) -> &Processor {
        &self.processor
    }

    /// Returns the method that fits the loaded models: the draft's kind, or plain decoding.
    #[must_use]
    pub fn default_method(&self) -> Method {
        self.draft
            .as_ref()
            .map_or(Method::None, |draft| draft.kind().into())
    }

    /// Creates a drafter for one conversation.
    ///
    /// # Errors
    /// Returns [`ModelError::DraftKind`] if the method does not match the loaded draft,
    /// [`ModelError::DraftMissing`] if the method needs a draft and none was loaded.
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

    /// Returns the reasons why an answer to `prompt` was not drafted, or was drafted with
    /// restrictions.
    ///
    /// # Arguments
    /// * `method`, `wanted` - how the answer was to be drafted.
    /// * `stats` - statistics of the answer.
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

    /// Returns a cache for `prompt` that already holds the known part of its beginning. That part
    /// comes from `running`, the cache of a generation that has read the same prompt, or from
    /// `store`.
    ///
    /// # Errors
    /// Returns the errors of the device.
    pub fn cache_for(
        &self,
        prompt: &EncodedPrompt,
        store: &ConversationStore,
        running: Option<&VlmCache>,
    ) -> Result<VlmCache, BoxError> {
        // The last token must be read in any case.
        let known = prompt.token_ids().len().saturating_sub(1);
        let copied = running.and_then(|cache| cache.beginning(known, self.target.features()));
        let cache = copied.or_else(|| store.cache_for(&self.target, prompt));
        match cache.or_else(|| self.target.resumable_cache()) {
            Some(cache) => Ok(cache),
            None => self.target.new_cache(),
        }
    }

    /// Returns the maximum number of bytes that a sequence of `rows` rows takes while it is decoded
    /// with `method`.
    #[must_use]
    pub fn sequence_bytes(&self, method: Method, rows: usize) -> usize {
        capacity_bound(rows).saturating_mul(self.row_bytes(method))
    }

    /// Returns the number of bytes per row of a sequence that is decoded with `method`: keys and
    /// values of target and draft, hidden states, and the target's input for the token.
    #[must_use]
    pub fn row_bytes(&self, method: Method) -> usize {
        let draft = self.draft.as_ref();
        let draft = draft.filter(|draft| method.network() == Some(draft.kind()));
        let draft_row = draft.map_or(0, Draft::cache_bytes_per_row);
        let embedding = self.target.hidden() * self.target.precision().compute.size();
        // Once in the target's cache, and once for the draft.
        let features = 2 * self.target.feature_bytes_per_row();
        let image = self.target.image_bytes_per_row();
        self.target.cache_bytes_per_row() + draft_row + embedding + image + features
    }
}
