//! Prompt lookup: n-gram drafts from the prompt and the answer so far, without a model.

mod auto;

use self::auto::{AutoLookup, Origin};
use crate::{
    AutoTree, BoxError, ConfigError, Drafter, Idle, NodeId, Prompt, TargetModel, TokenId,
    TokenTree, TreeError,
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
    config: PromptLookupConfig,
    /// Prompt and answer, the root of the next tree included.
    context: Vec<TokenId>,
    /// Unless trees are as large as the settings allow.
    auto: Option<Box<AutoLookup>>,
    idle: Option<Idle>,
}

/// An earlier occurrence of the last tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Match {
    /// Where its continuation starts.
    start: usize,
    /// How many tokens agree.
    length: usize,
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
            config,
            ..Self::default()
        })
    }

    /// A drafter that proposes what pays. Longer matches are told apart than by default, and
    /// followed for as long as they are likely to go on.
    #[must_use]
    pub fn auto(limits: AutoTree) -> Self {
        Self {
            config: PromptLookupConfig {
                max_ngram: 8,
                max_tokens: limits.max_nodes.saturating_sub(1),
                ..PromptLookupConfig::default()
            },
            auto: Some(Box::new(AutoLookup::new(limits))),
            ..Self::default()
        }
    }

    /// Where the continuations of the last tokens start, longest n-gram and latest place first.
    fn matches(&self) -> Vec<Match> {
        let mut found: Vec<Match> = Vec::with_capacity(self.config.max_branches);
        let len = self.context.len();
        let last = self.context.last();
        for ngram in (self.config.min_ngram..=self.config.max_ngram).rev() {
            if ngram >= len {
                continue;
            }
            let suffix = &self.context[len - ngram..];
            for start in (ngram..len).rev() {
                if found.len() == self.config.max_branches {
                    return found;
                }
                // Most places differ in the last token already.
                if self.context.get(start - 1) != last {
                    continue;
                }
                if self.context[start - ngram..start] == *suffix
                    && !found.iter().any(|earlier| earlier.start == start)
                {
                    found.push(Match {
                        start,
                        length: ngram,
                    });
                }
            }
        }
        found
    }

    fn draft(&mut self, root: TokenId) -> Result<TokenTree, TreeError> {
        let matches = self.matches();
        self.idle = matches.is_empty().then_some(Idle::NothingProposed);
        let (tree, origins) = self.grow(root, &matches)?;
        Ok(match &mut self.auto {
            Some(auto) => {
                if self.idle.is_none() {
                    self.idle = Some(auto.idle());
                }
                auto.trimmed(&tree, &origins)
            }
            None => tree,
        })
    }

    /// The continuations of `matches` as a tree, and by which of them each node was found.
    fn grow(
        &self,
        root: TokenId,
        matches: &[Match],
    ) -> Result<(TokenTree, Vec<Origin>), TreeError> {
        let mut tree = TokenTree::new(root);
        let found: Vec<Origin> = matches
            .iter()
            .enumerate()
            .map(|(branch, found)| Origin::new(found, branch))
            .collect();
        let mut origins: Vec<Origin> = found.first().copied().into_iter().collect();
        let mut branches: Vec<(usize, NodeId, Origin)> = matches
            .iter()
            .zip(found)
            .map(|(found, origin)| (found.start, NodeId::ROOT, origin))
            .collect();
        // Level by level, so that no branch takes the tokens of another.
        while !branches.is_empty() {
            let mut n_left = 0;
            for branch_idx in 0..branches.len() {
                let (place, node, origin) = branches[branch_idx];
                let Some(&token) = self.context.get(place) else {
                    continue;
                };
                let child = match tree.child_with(node, token) {
                    Some(child) => child,
                    None if tree.n_nodes() > self.config.max_tokens => return Ok((tree, origins)),
                    None => {
                        origins.push(origin);
                        tree.push(node, token)?
                    }
                };
                branches[n_left] = (place + 1, child, origin);
                n_left += 1;
            }
            branches.truncate(n_left);
        }
        Ok((tree, origins))
    }
}

impl<T: TargetModel> Drafter<T> for PromptLookupDrafter {
    fn name(&self) -> &str {
        "prompt-lookup"
    }

    fn begin(
        &mut self,
        prompt: &T::Prompt,
        _features: T::Features,
        next: TokenId,
    ) -> Result<TokenTree, BoxError> {
        if let Some(auto) = &mut self.auto {
            auto.begin(prompt.token_ids().len());
        }
        self.context.clear();
        self.context.extend_from_slice(prompt.token_ids());
        self.context.push(next);
        Ok(self.draft(next)?)
    }

    fn advance(
        &mut self,
        accepted: &[TokenId],
        _features: T::Features,
        next: TokenId,
    ) -> Result<TokenTree, BoxError> {
        if let Some(auto) = &mut self.auto {
            auto.settle(accepted);
        }
        self.context.extend_from_slice(accepted);
        self.context.push(next);
        Ok(self.draft(next)?)
    }

    fn idle(&self) -> Idle {
        self.idle.unwrap_or(Idle::NotWorthwhile)
    }
}
