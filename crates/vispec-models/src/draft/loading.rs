//! Loads the weights of a draft from its checkpoint.

use std::path::Path;
use std::sync::Arc;

use super::config::DraftConfig;
use super::eagle3::{Eagle3Config, LayerIds, own_tokens};
use super::inputs::{PromptEmbeds, Reading};
use super::medusa::{Medusa, MedusaHeads};
use super::network::DraftNetwork;
use super::neural::NeuralDraft;
use super::positions::DraftPositions;
use super::reading::PositionsOf;
use super::vocab::DraftHead;
use super::{Draft, DraftKind};
use crate::error::ModelError;
use crate::features::FeatureSpec;
use crate::nn::{Bias, DecoderStack, Embedding, Linear};
use crate::target_text::TargetText;
use crate::weights::{Checkpoint, RenameRule, Weights};

/// EAGLE-3 drafts from the authors and from SGLang name their only layer `midlayer`.
pub(super) const RENAME_RULES: &[RenameRule] = &[RenameRule {
    from: "midlayer.",
    to: "layers.0.",
}];

/// The checkpoint of a draft and the target that it is loaded for.
#[derive(Clone, Copy)]
pub(super) struct Loading<'a> {
    pub(super) dir: &'a Path,
    pub(super) target: &'a TargetText,
    pub(super) checkpoint: &'a Checkpoint,
}

impl<'a> Loading<'a> {
    fn weights(&self) -> Weights<'a> {
        Weights::new(self.checkpoint, &self.target.device, self.target.precision)
    }

    /// Returns an error unless the draft has the target's value.
    fn check(
        &self,
        quantity: &'static str,
        found: usize,
        expected: usize,
    ) -> Result<(), ModelError> {
        if found == expected {
            return Ok(());
        }
        Err(ModelError::DraftMismatch {
            draft: self.dir.to_owned(),
            quantity,
            found,
            expected,
        })
    }

    fn config(&self) -> Result<DraftConfig, ModelError> {
        let config = DraftConfig::read(self.dir)?;
        let target = self.target;
        self.check("hidden size", config.hidden(), target.decoder.hidden)?;
        let vocab_size = target.embedding.vocab_size();
        self.check("vocabulary size", config.vocab_size(), vocab_size)?;
        Ok(config)
    }

    /// Returns the number of learned queries, if the file contains any.
    fn n_queries(&self) -> Option<usize> {
        let shape = self.checkpoint.shape("imadpt.q");
        // Expect at least one, so that a file with zero queries is reported as a wrong shape.
        shape.and_then(|shape| shape.first()).map(|&n| n.max(1))
    }

    /// Loads the embedding. It is frozen in training, so a file without it uses the target's.
    fn embedding(&self, weights: &Weights<'_>, hidden: usize) -> Embedding {
        if weights.contains("embed_tokens.weight") {
            let vocab_size = self.target.embedding.vocab_size();
            Embedding::load(&weights.at("embed_tokens"), vocab_size, hidden)
        } else {
            self.target.embedding.clone()
        }
    }

    /// Loads a Medusa draft: heads that read the target's hidden state directly.
    pub(super) fn medusa(&self) -> Result<Draft, ModelError> {
        let config = self.config()?;
        let weights = self.weights();
        // Published files contain it, but the heads do not use it.
        weights.skip("embed_tokens");
        let heads = Arc::new(MedusaHeads::load(&weights, config.hidden()));
        let head = Arc::new(DraftHead::new(self.target.head.clone()));
        weights.finish()?;
        Ok(Draft::Medusa(Medusa { heads, head }))
    }

    /// Loads a ViSpec or EAGLE-2 draft.
    pub(super) fn joined(&self, kind: DraftKind) -> Result<Draft, ModelError> {
        let config = self.config()?;
        let weights = self.weights();
        let network = DraftNetwork::load(&weights, &config, self.n_queries());
        let embedding = self.embedding(&weights, config.hidden());
        weights.finish()?;
        let head = DraftHead::new(self.target.head.clone());
        let reading = Reading {
            features: FeatureSpec::last(),
            feature_width: config.hidden(),
            embeds: PromptEmbeds::OfTarget,
            positions: DraftPositions::Sequential,
            positions_of: PositionsOf::State,
        };
        Ok(self.neural(kind, network, embedding, head, reading))
    }

    /// Loads an EAGLE-3 draft.
    pub(super) fn eagle3(&self, layer_ids: LayerIds) -> Result<Draft, ModelError> {
        let (kind, target) = (DraftKind::Eagle3, self.target);
        let config = Eagle3Config::read(self.dir)?;
        let hidden = config.decoder.hidden;
        let (of_target, expected) = (config.target_hidden, target.decoder.hidden);
        self.check("target hidden size", of_target, expected)?;
        let vocab_size = target.embedding.vocab_size();
        self.check("vocabulary size", config.vocab_size, vocab_size)?;
        let n_queries = self.n_queries();
        let has_embedding = self.checkpoint.contains("embed_tokens.weight");
        if n_queries.is_some() || !has_embedding {
            // The draft reads the target's embeddings.
            self.check("hidden size", hidden, expected)?;
        }
        let features = config.features(target.decoder.layers, layer_ids)?;
        let n_states = features.states().len();

        let weights = self.weights();
        let network = DraftNetwork::load_eagle3(&weights, &config, n_states, n_queries);
        let head = if self.checkpoint.contains("lm_head.weight") {
            let head = weights.at("lm_head");
            let head = Linear::load(&head, hidden, config.draft_vocab_size, Bias::No);
            DraftHead::own(head, own_tokens(self.checkpoint, &weights, &config)?)
        } else {
            // Trained with the target's head, which the file does not repeat.
            self.check("hidden size", hidden, expected)?;
            self.check("draft vocabulary size", config.draft_vocab_size, vocab_size)?;
            DraftHead::new(target.head.clone())
        };
        let embedding = self.embedding(&weights, hidden);
        weights.finish()?;
        let reading = Reading {
            features,
            feature_width: n_states * of_target,
            embeds: PromptEmbeds::OfTokens,
            positions: config.positions,
            positions_of: PositionsOf::State,
        };
        Ok(self.neural(kind, network, embedding, head, reading))
    }

    fn neural(
        &self,
        kind: DraftKind,
        network: DraftNetwork,
        embedding: Embedding,
        head: DraftHead,
        reading: Reading,
    ) -> Draft {
        let stack = DecoderStack::new(network.decoder().clone(), network.config());
        let draft = NeuralDraft {
            name: kind.as_str(),
            stack: Arc::new(stack),
            network: Arc::new(network),
            embedding,
            head: Arc::new(head),
            reading: Arc::new(reading),
            dtype: self.target.precision.compute,
        };
        Draft::Neural(kind, draft)
    }
}
