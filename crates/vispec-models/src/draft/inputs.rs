//! Inputs that a draft takes from its target, besides weights.

use burn::tensor::Tensor;

use super::positions::DraftPositions;
use super::reading::PositionsOf;
use crate::features::FeatureSpec;

/// How a draft reads a sequence of its target.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    /// Hidden states of the target that the draft reads.
    pub(super) features: FeatureSpec,
    /// Width of these hidden states, concatenated.
    pub(super) feature_width: usize,
    /// Source of the embeddings of a prompt.
    pub(super) embeds: PromptEmbeds,
    pub(super) positions: DraftPositions,
    /// The token whose position a row has.
    pub(super) positions_of: PositionsOf,
}

/// Source of the embeddings of a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PromptEmbeds {
    /// The target's input embeddings, with image features at image positions.
    OfTarget,
    /// The draft's embeddings of all tokens, including image placeholders.
    OfTokens,
}

/// The features differ in width from those that the draft reads.
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
    /// Returns an error unless the features `[rows, width]` have the width that the draft reads.
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
