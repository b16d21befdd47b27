//! Inputs that a draft takes from its target, besides weights.

use std::str::FromStr;

use burn::tensor::Tensor;

use super::positions::DraftPositions;
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

/// How an EAGLE-3 draft reads a prompt, for the choices on which serving engines disagree. The
/// default matches vLLM, and SGLang except for images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DraftReading {
    /// Source of the embeddings of a prompt.
    pub embeds: DraftEmbeds,
    /// The token whose position a row has.
    pub positions: PositionsOf,
}

/// Source of the prompt embeddings that an EAGLE-3 draft reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DraftEmbeds {
    /// The draft's own table. At image positions the draft reads the embedding of the placeholder.
    #[default]
    Tokens,
    /// The target's input embeddings, including image features, as in SGLang.
    Target,
}

/// The token whose position a row of an EAGLE-3 draft has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PositionsOf {
    /// The token whose hidden state the row contains.
    #[default]
    State,
    /// The next token, with its position reduced by one, as in training with SpecForge. This
    /// differs from [`State`](Self::State) inside images and at their borders.
    Next,
}

/// Parses a name that users type, one of those in `known`.
fn named<T: Copy>(name: &str, known: &[(&str, T)]) -> Result<T, String> {
    let found = known.iter().find(|(known, _)| *known == name);
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    found.map(|(_, value)| *value).ok_or_else(|| {
        let expected = names.join(" or ");
        format!("unknown {name:?}, expected {expected}")
    })
}

impl FromStr for DraftEmbeds {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        named(name, &[("tokens", Self::Tokens), ("target", Self::Target)])
    }
}

impl FromStr for PositionsOf {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        named(name, &[("state", Self::State), ("next", Self::Next)])
    }
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
