//! Guesses without a network pass, added to the tree of a network.

use std::sync::Arc;

use super::auto::AutoGrowth;
use crate::draft::lookup::{Guesses, LookedUp, Lookup, LookupChances};
use crate::{PromptLookupConfig, SuffixStore, TokenId, TokenTree, TreeError};

/// Guesses from prompt, answer and, if there is a store, earlier answers, with their success rates.
#[derive(Clone, Debug)]
pub(super) struct FreeGuesses {
    lookup: Lookup,
    chances: LookupChances,
    /// Guesses for the growing tree.
    pub(super) guesses: Guesses,
    /// The last tree that was verified.
    pub(super) verified: Option<LookedUp>,
}

impl FreeGuesses {
    /// Creates guesses for trees of at most `max_nodes`.
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

    /// Adds guesses from earlier answers.
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

    /// Learns from the last cycle and makes the guesses for the next.
    pub(super) fn advance(&mut self, accepted: &[TokenId], next: TokenId) -> Result<(), TreeError> {
        if let Some(verified) = self.verified.take() {
            self.chances.learn(&verified, accepted);
            self.lookup.note_stored(verified.stored_hits(accepted));
        }
        self.lookup.advance(accepted, next);
        self.guesses = self.lookup.guesses()?;
        Ok(())
    }

    /// Returns the chance of each guess to be accepted if its parent is, in node order.
    pub(super) fn chances(&self) -> Vec<f64> {
        self.chances.of(&self.guesses)
    }

    /// Returns the number of tokens that verifying only these guesses is expected to gain.
    pub(super) fn gain(&self, auto: &AutoGrowth) -> f64 {
        let mut chances = self.chances.down_from_root(&self.guesses);
        let mut best_first = chances.split_off(1);
        best_first.sort_by(|a, b| b.total_cmp(a));
        auto.budget().gain(&best_first)
    }
}
