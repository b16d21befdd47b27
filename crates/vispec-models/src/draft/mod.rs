//! Drafts that read the target's hidden states: ViSpec, EAGLE-2, EAGLE-3 and Medusa.

mod any;
mod config;
mod eagle3;
#[cfg(feature = "cube")]
mod grown;
mod input;
mod inputs;
mod loading;
mod medusa;
mod network;
mod neural;
mod neural_pass;
mod positions;
mod reading;
mod vision_adaptor;
mod vocab;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use vispec_core::{DynamicTreeDrafter, TreeSize};

pub use any::AnyDrafter;
pub use config::DraftConfig;
pub use eagle3::{Eagle3Config, LayerIds};
pub use medusa::{Medusa, MedusaSession};
pub use network::{DraftNetwork, DraftPrompt, DraftPromptInput};
pub use neural::{NeuralDraft, NeuralDraftSession};
pub use reading::{DraftEmbeds, DraftReading, PositionsOf};
pub(crate) use vocab::{DraftHead, HeadOrigin, VocabPlace};
pub use vocab::{DraftVocab, DraftVocabFile};

use self::loading::{Loading, RENAME_RULES};
use crate::config_file::ConfigFile;
use crate::error::ModelError;
use crate::features::FeatureSpec;
use crate::target::VlmTarget;
use crate::target_text::TargetText;
use crate::weights::Checkpoint;

/// Kinds of drafts that have a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DraftKind {
    /// A vision-aware network that compresses images.
    Vispec,
    /// The ViSpec network without its vision parts.
    Eagle2,
    /// A network that reads several hidden states of the target and has its own output head. It has
    /// vision parts if the checkpoint contains them.
    Eagle3,
    /// Independent heads on the target's last hidden state.
    Medusa,
}

impl DraftKind {
    /// Returns the name that users type.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Vispec => "vispec",
            Self::Eagle2 => "eagle2",
            Self::Eagle3 => "eagle3",
            Self::Medusa => "medusa",
        }
    }

    /// Infers the kind from the tensors in the checkpoint; for EAGLE-3 also from the config.
    fn of(checkpoint: &Checkpoint, config: &ConfigFile) -> Result<Self, ModelError> {
        let is_eagle3 = checkpoint.contains("layers.0.hidden_norm.weight");
        Ok(if is_eagle3 || Eagle3Config::is_named_in(config)? {
            Self::Eagle3
        } else if checkpoint.contains("medusa_head.0.0.linear.weight") {
            Self::Medusa
        } else if checkpoint.contains("imadpt.q") {
            Self::Vispec
        } else {
            Self::Eagle2
        })
    }
}

impl fmt::Display for DraftKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How a draft sees the images of a prompt, besides the target's hidden states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DraftImages {
    /// A few tokens and a vector, made by a vision adaptor.
    Compressed,
    /// The features of every image token.
    Features,
    /// The embedding of the placeholder token at every image token, as in the training of published
    /// EAGLE-3 drafts.
    Placeholders,
    /// Nothing.
    Nothing,
}

impl DraftImages {
    /// Returns the name used in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compressed => "compressed",
            Self::Features => "features",
            Self::Placeholders => "placeholders",
            Self::Nothing => "nothing",
        }
    }
}

/// The weights of a draft, loaded for one target.
#[derive(Debug, Clone)]
pub enum Draft {
    /// ViSpec, EAGLE-2 or EAGLE-3.
    Neural(DraftKind, NeuralDraft),
    /// Medusa.
    Medusa(Medusa),
}

impl Draft {
    /// Loads the draft in `dir` for `target`, on the target's device and in its precision.
    ///
    /// # Errors
    /// Same as [`Draft::load_for`].
    pub fn load(dir: &Path, target: &VlmTarget) -> Result<Self, ModelError> {
        Self::load_for(dir, &target.for_draft(), LayerIds::Auto)
    }

    /// Like [`Draft::load`], but for a target of which only the text parts are loaded.
    ///
    /// # Arguments
    /// * `layer_ids` - meaning of the layer numbers in the config of an EAGLE-3 draft.
    ///
    /// # Errors
    /// Any error from reading the config and the weights; [`ModelError::DraftMismatch`] if the
    /// hidden size or the vocabulary size differs from the target's.
    pub fn load_for(
        dir: &Path,
        target: &TargetText,
        layer_ids: LayerIds,
    ) -> Result<Self, ModelError> {
        // Report a missing config before looking at the weights.
        let config = ConfigFile::open_with_advice(dir, config::MISSING_CONFIG)?;
        let loading = Loading {
            dir,
            target,
            checkpoint: &Checkpoint::open(dir, RENAME_RULES)?,
        };
        match DraftKind::of(loading.checkpoint, &config)? {
            DraftKind::Medusa => loading.medusa(),
            DraftKind::Eagle3 => loading.eagle3(layer_ids),
            kind @ (DraftKind::Vispec | DraftKind::Eagle2) => loading.joined(kind),
        }
    }

    /// Implements [`Engine::with_draft_reading`](crate::Engine::with_draft_reading). Errors name
    /// `dir`, the draft's directory.
    pub(crate) fn with_reading(
        self,
        reading: DraftReading,
        dir: &Path,
        target: &VlmTarget,
    ) -> Result<Self, ModelError> {
        if reading == DraftReading::default() {
            return Ok(self);
        }
        match self {
            Self::Neural(DraftKind::Eagle3, draft) => {
                let (found, expected) = (draft.network().config().hidden, target.hidden());
                if reading.embeds == DraftEmbeds::Target && found != expected {
                    return Err(ModelError::DraftMismatch {
                        draft: dir.to_owned(),
                        quantity: "hidden size",
                        found,
                        expected,
                    });
                }
                Ok(Self::Neural(DraftKind::Eagle3, draft.with_reading(reading)))
            }
            other => Err(ModelError::DraftKind {
                found: other.kind().as_str(),
                expected: DraftKind::Eagle3.as_str(),
            }),
        }
    }

    /// Returns which hidden states of the target the draft reads.
    pub(crate) fn features(&self) -> FeatureSpec {
        match self {
            Self::Neural(_, draft) => draft.features().clone(),
            Self::Medusa(_) => FeatureSpec::last(),
        }
    }

    /// Returns the kind of the checkpoint.
    #[must_use]
    pub fn kind(&self) -> DraftKind {
        match self {
            Self::Neural(kind, _) => *kind,
            Self::Medusa(_) => DraftKind::Medusa,
        }
    }

    /// Restricts the draft to the part of the output head that `vocab` selects.
    ///
    /// # Arguments
    /// * `dir` - directory of the draft, which may contain a list of tokens.
    ///
    /// # Errors
    /// [`ModelError::Io`], [`ModelError::ConfigSyntax`] or [`ModelError::DraftVocab`] if the list
    /// of tokens cannot be read or used; [`ModelError::DraftVocab`] if the draft has its own output
    /// head and `vocab` selects specific tokens.
    pub fn restricted(
        mut self,
        vocab: &DraftVocab,
        dir: &Path,
        target: &VlmTarget,
    ) -> Result<Self, ModelError> {
        if self.head_mut().origin() == HeadOrigin::Draft {
            return match vocab {
                DraftVocab::Auto | DraftVocab::All => Ok(self),
                DraftVocab::First(_) | DraftVocab::File(_) => Err(ModelError::DraftVocab {
                    path: dir.to_owned(),
                    reason: "the draft has its own output head, so its tokens are fixed".to_owned(),
                }),
            };
        }
        let head = target.text().head();
        let place = VocabPlace {
            draft: dir,
            vocab_size: head.n_outputs(),
            hidden: target.hidden(),
            target_parameters: target.weights_per_pass(),
        };
        if let Some(tokens) = vocab.tokens(&place)? {
            *self.head_mut() = Arc::new(DraftHead::restricted(head, tokens));
        }
        Ok(self)
    }

    fn head_mut(&mut self) -> &mut Arc<DraftHead> {
        match self {
            Self::Neural(_, draft) => &mut draft.head,
            Self::Medusa(medusa) => &mut medusa.head,
        }
    }

    /// Returns the number of tokens that the draft chooses from, or `None` if it chooses from all.
    #[must_use]
    pub fn vocab_len(&self) -> Option<usize> {
        match self {
            Self::Neural(_, draft) => draft.head.vocab_len(),
            Self::Medusa(medusa) => medusa.head.vocab_len(),
        }
    }

    /// Returns the number of learned queries of a vision-aware draft, including the global query;
    /// `None` for other drafts.
    #[must_use]
    pub fn n_queries(&self) -> Option<usize> {
        match self {
            Self::Neural(_, draft) => draft.network().n_queries(),
            Self::Medusa(_) => None,
        }
    }

    /// Returns how the draft sees images.
    #[must_use]
    pub fn images(&self) -> DraftImages {
        match self {
            _ if self.n_queries().is_some() => DraftImages::Compressed,
            Self::Neural(DraftKind::Eagle3, _) => DraftImages::Placeholders,
            Self::Neural(..) => DraftImages::Features,
            Self::Medusa(_) => DraftImages::Nothing,
        }
    }

    /// Returns the bytes per row of the draft's KV cache; 0 if the draft has no cache. The caches
    /// grow in steps, like those of targets.
    pub(crate) fn cache_bytes_per_row(&self) -> usize {
        match self {
            Self::Neural(_, draft) => draft.cache_bytes_per_row(),
            Self::Medusa(_) => 0,
        }
    }

    /// Returns a drafter for a new conversation whose trees have the given size.
    #[must_use]
    pub fn drafter(&self, size: TreeSize) -> AnyDrafter {
        match self {
            Self::Neural(_, draft) => {
                let drafter = DynamicTreeDrafter::new(draft.session(), size);
                AnyDrafter::Neural(Box::new(drafter))
            }
            Self::Medusa(medusa) => {
                let drafter = DynamicTreeDrafter::new(medusa.session(), size);
                AnyDrafter::Medusa(Box::new(drafter))
            }
        }
    }
}
