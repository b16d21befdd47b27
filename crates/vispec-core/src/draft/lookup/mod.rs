//! Prompt lookup: n-gram drafts from the prompt and the answer so far, without a model.

mod auto;
mod chances;
mod context;
mod store;

use std::sync::Arc;

use self::auto::AutoLookup;
pub(super) use self::chances::{Guesses, LookedUp, LookupChances, Origin};
pub(super) use self::context::Lookup;
pub use self::store::{SuffixStore, SuffixStoreUsage};
use crate::{
    AutoTree, BoxError, ConfigError, Drafter, Idle, PassLoad, Prompt, Proposal, TargetModel,
    TokenId, TokenTree, TreeError,
};

/// Settings of [`PromptLookupDrafter`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PromptLookupConfig {
    /// Longest n-gram to search for; longer matches are tried first.
    pub max_ngram: usize,
    /// Shortest n-gram to search for.
    pub min_ngram: usize,
    /// Maximum number of draft tokens per tree, not counting the root.
    pub max_tokens: usize,
    /// Maximum number of earlier matches to follow; their continuations share the tree and its
    /// token limit.
    pub max_branches: usize,
}

impl PromptLookupConfig {
    /// Returns settings for trees that are cut by cost: longer matches than by default are
    /// distinguished, and their continuations are only limited by `max_nodes`.
    pub(super) fn far(max_nodes: usize) -> Self {
        Self {
            max_ngram: 8,
            max_tokens: max_nodes.saturating_sub(1),
            ..Self::default()
        }
    }
}

impl Default for PromptLookupConfig {
    fn default() -> Self {
        Self {
            max_ngram: 3,
            min_ngram: 1,
            max_tokens: 10,
            max_branches: 2,
        }
    }
}

/// Drafts the continuations of earlier occurrences of the last few tokens.
#[derive(Clone, Default, Debug)]
pub struct PromptLookupDrafter {
    lookup: Lookup,
    /// Set if trees are cut by cost; otherwise they are as large as the settings allow.
    auto: Option<Box<AutoLookup>>,
    /// The last tree.
    verified: Option<LookedUp>,
    idle: Option<Idle>,
}

impl PromptLookupDrafter {
    /// Creates a drafter with these settings.
    ///
    /// # Errors
    /// [`ConfigError`] unless `1 <= min_ngram <= max_ngram` and `max_branches` is at least 1.
    pub fn new(config: PromptLookupConfig) -> Result<Self, ConfigError> {
        if config.min_ngram == 0 || config.min_ngram > config.max_ngram {
            return Err(ConfigError::NgramRange {
                min: config.min_ngram,
                max: config.max_ngram,
            });
        }
        if config.max_branches == 0 {
            return Err(ConfigError::NoBranch);
        }
        Ok(Self {
            lookup: Lookup::new(config),
            ..Self::default()
        })
    }

    /// Creates a drafter with trees sized by cost. It distinguishes longer matches than by default,
    /// and follows them for as long as they are likely to continue.
    #[must_use]
    pub fn auto(limits: AutoTree) -> Self {
        Self {
            lookup: Lookup::new(PromptLookupConfig::far(limits.max_nodes)),
            auto: Some(Box::new(AutoLookup::new(limits))),
            ..Self::default()
        }
    }

    /// Adds proposals from the earlier answers in `store`.
    #[must_use]
    pub fn with_store(mut self, store: Arc<SuffixStore>) -> Self {
        self.lookup.add_store(store);
        self
    }

    fn draft(&mut self) -> Result<TokenTree, TreeError> {
        let guesses = self.lookup.guesses()?;
        let nothing = guesses.tree.n_nodes() == 1;
        self.idle = nothing.then_some(Idle::NothingProposed);
        let (tree, origins) = match &mut self.auto {
            Some(auto) => {
                if self.idle.is_none() {
                    self.idle = Some(auto.idle());
                }
                auto.trimmed(&guesses)
            }
            None => {
                let origins = guesses.origins.into_iter().map(Some);
                (guesses.tree, origins.collect())
            }
        };
        self.verified = Some(LookedUp::new(tree.clone(), origins));
        Ok(tree)
    }
}

impl<T: TargetModel> Drafter<T> for PromptLookupDrafter {
    fn name(&self) -> &str {
        "prompt-lookup"
    }

    fn note_load(&mut self, load: PassLoad) {
        if let Some(auto) = &mut self.auto {
            auto.note_load(load);
        }
    }

    fn begin(
        &mut self,
        prompt: &T::Prompt,
        _features: T::Features,
        next: TokenId,
    ) -> Result<Proposal, BoxError> {
        if let Some(auto) = &mut self.auto {
            auto.begin(prompt.token_ids().len());
        }
        self.lookup.begin(prompt.token_ids(), next);
        Ok(self.draft()?.into())
    }

    fn advance(
        &mut self,
        accepted: &[TokenId],
        _features: T::Features,
        next: TokenId,
    ) -> Result<Proposal, BoxError> {
        let verified = self.verified.take();
        if let Some(verified) = &verified {
            self.lookup.note_stored(verified.stored_hits(accepted));
        }
        if let Some(auto) = &mut self.auto {
            auto.settle(verified.as_ref(), accepted);
        }
        self.lookup.advance(accepted, next);
        Ok(self.draft()?.into())
    }

    fn idle(&self) -> Idle {
        self.idle.unwrap_or(Idle::NotWorthwhile)
    }
}
