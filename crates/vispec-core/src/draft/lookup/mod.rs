//! Prompt lookup: n-gram drafts from the prompt and the answer so far, without a model.

mod auto;
mod chances;
mod context;
mod store;

use std::sync::Arc;

use self::auto::AutoLookup;
pub(super) use self::chances::{LookedUp, LookupChances, Origin};
pub(super) use self::context::{Guesses, Lookup};
pub use self::store::{SuffixStore, SuffixStoreUsage};
use crate::{
    AutoTree, BoxError, ConfigError, Drafter, Idle, PassLoad, Prompt, Proposal, TargetModel,
    TokenId, TokenTree, TreeError,
};

/// Settings of [`PromptLookupDrafter`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PromptLookupConfig {
    /// Longest n-gram looked for; longer matches are tried first.
    pub max_ngram: usize,
    /// Shortest n-gram looked for.
    pub min_ngram: usize,
    /// Draft tokens per tree, the root not counted.
    pub max_tokens: usize,
    /// Earlier matches followed at once; their continuations share the tree and its tokens.
    pub max_branches: usize,
}

impl PromptLookupConfig {
    /// For trees that are cut to what pays: longer matches are told apart than by default, and
    /// followed for as long as they are likely to go on.
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

/// Drafts what followed earlier occurrences of the last few tokens.
#[derive(Clone, Default, Debug)]
pub struct PromptLookupDrafter {
    lookup: Lookup,
    /// Unless trees are as large as the settings allow.
    auto: Option<Box<AutoLookup>>,
    /// The last tree.
    verified: Option<LookedUp>,
    idle: Option<Idle>,
}

impl PromptLookupDrafter {
    /// A drafter with these settings.
    ///
    /// # Errors
    /// [`ConfigError`] unless `1 <= min_ngram <= max_ngram` and there is at least one branch.
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

    /// A drafter that proposes what pays. Longer matches are told apart than by default, and
    /// followed for as long as they are likely to go on.
    #[must_use]
    pub fn auto(limits: AutoTree) -> Self {
        Self {
            lookup: Lookup::new(PromptLookupConfig::far(limits.max_nodes)),
            auto: Some(Box::new(AutoLookup::new(limits))),
            ..Self::default()
        }
    }

    /// The same drafter, which also proposes what earlier answers said.
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
