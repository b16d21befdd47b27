//! What a draft takes from its target, besides weights.

use std::str::FromStr;

use burn::tensor::Tensor;

use super::positions::DraftPositions;
use crate::features::FeatureSpec;

/// What a draft reads of a target's sequence.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    /// Hidden states.
    pub(super) features: FeatureSpec,
    /// Their width, all together.
    pub(super) feature_width: usize,
    /// What embeds the tokens of a prompt.
    pub(super) embeds: PromptEmbeds,
    pub(super) positions: DraftPositions,
    /// Whose positions these are.
    pub(super) positions_of: PositionsOf,
}

/// How an EAGLE-3 draft reads a prompt, where the software that serves such drafts disagrees. The
/// default is what vLLM does, and SGLang but for images.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DraftReading {
    /// What embeds the tokens of a prompt.
    pub embeds: DraftEmbeds,
    /// Whose positions a row has.
    pub positions: PositionsOf,
}

/// What embeds the tokens of a prompt for an EAGLE-3 draft.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DraftEmbeds {
    /// Its own table, also at the places of images, where it reads a placeholder.
    #[default]
    Tokens,
    /// What the target reads, image features included, as SGLang hands it in.
    Target,
}

/// Whose position a row of an EAGLE-3 draft has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PositionsOf {
    /// The token whose hidden state the row has.
    #[default]
    State,
    /// The token behind it, less one, as SpecForge trains: another at the borders of images and
    /// within.
    Next,
}

/// A word of `known` that users type.
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
