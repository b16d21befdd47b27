//! Drafts that read the target's hidden states: ViSpec, EAGLE-2 and Medusa.

mod any;
mod config;
mod medusa;
mod network;
mod neural;
mod neural_pass;
mod vision_adaptor;
mod vocab;

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use vispec_core::{DynamicTreeDrafter, TreeSize};

pub use any::AnyDrafter;
pub use config::DraftConfig;
pub use medusa::{Medusa, MedusaHeads, MedusaSession};
pub use network::{DraftNetwork, DraftPrompt, VisionFusion};
pub use neural::{NeuralDraft, NeuralDraftSession};
pub use vision_adaptor::{CompressedImage, VisionAdaptor};
pub use vocab::{DraftHead, DraftVocab, DraftVocabFile, VocabPlace};

use crate::error::ModelError;
use crate::nn::{DecoderStack, Embedding};
use crate::target::VlmTarget;
use crate::target_text::TargetText;
use crate::weights::{Checkpoint, Weights};

/// Kinds of drafts with a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DraftKind {
    /// Vision-aware, images compressed.
    Vispec,
    /// The same network without vision parts.
    Eagle2,
    /// Independent heads.
    Medusa,
}

impl DraftKind {
    /// The name that users type.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Vispec => "vispec",
            Self::Eagle2 => "eagle2",
            Self::Medusa => "medusa",
        }
    }

    /// The tensors in a checkpoint tell its kind.
    fn of(checkpoint: &Checkpoint) -> Self {
        if checkpoint.contains("medusa_head.0.0.linear.weight") {
            Self::Medusa
        } else if checkpoint.contains("imadpt.q") {
            Self::Vispec
        } else {
            Self::Eagle2
        }
    }
}

impl fmt::Display for DraftKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The weights of a draft, loaded for one target.
#[derive(Debug, Clone)]
pub enum Draft {
    /// ViSpec or EAGLE-2.
    Neural(DraftKind, NeuralDraft),
    /// Medusa.
    Medusa(Medusa),
}

impl Draft {
    /// Loads the draft in `dir` for `target`, on the target's device and in its precision.
    ///
    /// # Errors
    /// Any error of reading config and weights; [`ModelError::DraftMismatch`] if hidden size or
    /// vocabulary are not the target's.
    pub fn load(dir: &Path, target: &VlmTarget) -> Result<Self, ModelError> {
        Self::load_for(dir, &target.for_draft())
    }

    /// The same for a target of which only these parts are loaded.
    ///
    /// # Errors
    /// As [`Draft::load`].
    pub fn load_for(dir: &Path, target: &TargetText) -> Result<Self, ModelError> {
        let config = DraftConfig::read(dir)?;
        let check = |quantity, found, expected| {
            if found == expected {
                Ok(())
            } else {
                Err(ModelError::DraftMismatch {
                    draft: dir.to_owned(),
                    quantity,
                    found,
                    expected,
                })
            }
        };
        check("hidden size", config.hidden(), target.decoder.hidden)?;
        check(
            "vocabulary size",
            config.vocab_size(),
            target.embedding.vocab_size(),
        )?;

        let checkpoint = Checkpoint::open(dir, &[])?;
        let kind = DraftKind::of(&checkpoint);
        let weights = Weights::new(&checkpoint, &target.device, target.precision);
        let draft = match kind {
            DraftKind::Medusa => {
                // Carried by the published files, not used by the heads.
                weights.skip("embed_tokens");
                let heads = Arc::new(MedusaHeads::load(&weights, config.hidden()));
                Self::Medusa(Medusa {
                    heads,
                    head: Arc::new(DraftHead::new(target.head.clone())),
                })
            }
            DraftKind::Vispec | DraftKind::Eagle2 => {
                let n_queries = checkpoint.shape("imadpt.q").and_then(|shape| shape.first());
                // At least one is expected, so that a file with none is misshapen.
                let n_queries = n_queries.map(|&found| found.max(1));
                let network = DraftNetwork::load(&weights, &config, n_queries);
                // Frozen in training, so a file without it means the target's own.
                let embedding = if weights.contains("embed_tokens.weight") {
                    let at = weights.at("embed_tokens");
                    Embedding::load(&at, config.vocab_size(), config.hidden())
                } else {
                    target.embedding.clone()
                };
                let name = kind.as_str();
                let head = Arc::new(DraftHead::new(target.head.clone()));
                let stack = Arc::new(DecoderStack::new(network.decoder(), network.config()));
                let network = Arc::new(network);
                Self::Neural(
                    kind,
                    NeuralDraft {
                        name,
                        network,
                        stack,
                        embedding,
                        head,
                        dtype: target.precision.compute,
                    },
                )
            }
        };
        weights.finish()?;
        Ok(draft)
    }

    /// Kind of the checkpoint.
    #[must_use]
    pub fn kind(&self) -> DraftKind {
        match self {
            Self::Neural(kind, _) => *kind,
            Self::Medusa(_) => DraftKind::Medusa,
        }
    }

    /// The same draft with the part of the output head that `vocab` names.
    ///
    /// # Arguments
    /// * `dir` - directory of the draft, which may hold a list of tokens.
    ///
    /// # Errors
    /// Any error of [`DraftVocab::tokens`].
    pub fn restricted(
        mut self,
        vocab: &DraftVocab,
        dir: &Path,
        target: &VlmTarget,
    ) -> Result<Self, ModelError> {
        let head = target.text().head();
        let config = target.config();
        let place = VocabPlace {
            draft: dir,
            vocab_size: head.n_outputs(),
            hidden: config.hidden,
            target_parameters: config.n_weights() + config.hidden * head.n_outputs(),
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

    /// Number of tokens that the draft chooses from, if they are not all.
    #[must_use]
    pub fn vocab_len(&self) -> Option<usize> {
        match self {
            Self::Neural(_, draft) => draft.head.vocab_len(),
            Self::Medusa(medusa) => medusa.head.vocab_len(),
        }
    }

    /// Learned queries of a vision-aware draft, the global one included; `None` for others.
    #[must_use]
    pub fn n_queries(&self) -> Option<usize> {
        match self {
            Self::Neural(_, draft) => draft.network().n_queries(),
            Self::Medusa(_) => None,
        }
    }

    /// Memory of a row in a conversation's cache of the draft; 0 if it has none. Caches grow in
    /// steps as those of targets do.
    #[must_use]
    pub fn cache_bytes_per_row(&self) -> usize {
        match self {
            Self::Neural(_, draft) => draft.cache_bytes_per_row(),
            Self::Medusa(_) => 0,
        }
    }

    /// Starts a conversation whose trees have the given size.
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
