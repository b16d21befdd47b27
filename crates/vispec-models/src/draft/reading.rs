//! What a draft takes from its target, besides weights.

use burn::tensor::Tensor;

use super::positions::DraftPositions;
use crate::features::FeatureSpec;

/// What a draft reads of a target's sequence.
#[derive(Debug)]
pub(super) struct Reading {
    /// Hidden states.
    pub(super) features: FeatureSpec,
    /// Their width, all together.
    pub(super) feature_width: usize,
    /// What embeds the tokens of a prompt.
    pub(super) embeds: PromptEmbeds,
    pub(super) positions: DraftPositions,
}

/// What embeds the tokens of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PromptEmbeds {
    /// The target's input embeddings, in which image features stand at the places of images.
    OfTarget,
    /// The draft's embedding of all tokens, also of those that hold the places of images.
    OfTokens,
}

/// Features that are not those that the draft reads.
#[derive(Debug, thiserror::Error)]
#[error(
    "a draft was given features of width {found}, expected {expected}: the target's hidden states \
     {states}"
)]
pub(super) struct WrongWidth {
    found: usize,
    expected: usize,
    states: String,
}

impl Reading {
    /// Fails unless features `[rows, width]` are as wide as those that the draft reads.
    pub(super) fn check(&self, features: &Tensor<2>) -> Result<(), WrongWidth> {
        let [_, found] = features.dims();
        if found == self.feature_width {
            return Ok(());
        }
        Err(WrongWidth {
            found,
            expected: self.feature_width,
            states: self.features.to_string(),
        })
    }
}
