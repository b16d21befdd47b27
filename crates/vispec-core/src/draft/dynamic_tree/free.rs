//! Guesses that cost nothing, in the tree of a network.

use std::sync::Arc;

use super::auto::AutoGrowth;
use crate::draft::lookup::{Guesses, LookedUp, Lookup, LookupChances};
use crate::{PromptLookupConfig, SuffixStore, TokenId, TokenTree, TreeError};

/// What is looked up in prompt, answer and maybe earlier answers, and how often it came true.
#[derive(Clone, Debug)]
pub(super) struct FreeGuesses {
    lookup: Lookup,
    chances: LookupChances,
    /// For the tree that grows.
    pub(super) guesses: Guesses,
    /// The last tree that was verified.
    pub(super) verified: Option<LookedUp>,
}

impl FreeGuesses {
    /// Guesses for trees of at most `max_nodes`.
    pub(super) fn new(max_nodes: usize) -> Self {
        Self {
            lookup: Lookup::new(PromptLookupConfig::far(max_nodes)),
            chances: LookupChances::new(),
            guesses: Guesses {
                tree: TokenTree::new(0),
                origins: Vec::new(),
            },
            verified: None,
        }
    }

    /// Has what followed in earlier answers guessed, too.
    pub(super) fn add_store(&mut self, store: Arc<SuffixStore>) {
        self.lookup.add_store(store);
    }

    pub(super) fn begin(&mut self, prompt: &[TokenId], next: TokenId) -> Result<(), TreeError> {
        self.chances = LookupChances::new();
        self.verified = None;
        self.lookup.begin(prompt, next);
        self.guesses = self.lookup.guesses()?;
        Ok(())
    }

    /// Learns from the last cycle and guesses for the next.
    pub(super) fn advance(&mut self, accepted: &[TokenId], next: TokenId) -> Result<(), TreeError> {
        if let Some(verified) = self.verified.take() {
            self.chances.learn(&verified, accepted);
            self.lookup.note_stored(verified.stored_hits(accepted));
        }
        self.lookup.advance(accepted, next);
        self.guesses = self.lookup.guesses()?;
        Ok(())
    }

    /// Chance of each guess to be accepted if its parent is, in node order.
    pub(super) fn chances(&self) -> Vec<f64> {
        self.chances.of(&self.guesses)
    }

    /// Tokens that verifying these guesses alone is expected to gain.
    pub(super) fn gain(&self, auto: &AutoGrowth) -> f64 {
        let mut chances = self.chances.down_from_root(&self.guesses);
        let mut best_first = chances.split_off(1);
        best_first.sort_by(|a, b| b.total_cmp(a));
        auto.budget().gain(&best_first)
    }
}
