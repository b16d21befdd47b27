//! Options for drafts whose config does not say how they read their target.

use std::str::FromStr;

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
