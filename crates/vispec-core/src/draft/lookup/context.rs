//! Continuations of earlier occurrences of the last few tokens: in prompt and answer, and in
//! earlier answers.

use std::borrow::Cow;
use std::sync::Arc;

use super::chances::{Guesses, Origin};
use super::{PromptLookupConfig, SuffixStore};
use crate::{NodeId, TokenId, TokenTree, TreeError};

/// Lookup in the prompt and the answer so far.
#[derive(Clone, Default, Debug)]
pub(in crate::draft) struct Lookup {
    config: PromptLookupConfig,
    /// Prompt and answer, the root of the next tree included.
    context: Vec<TokenId>,
    /// Earlier answers.
    store: Option<Arc<SuffixStore>>,
}

/// An earlier occurrence of the last tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Match {
    /// Start of its continuation.
    start: usize,
    /// Number of matching tokens.
    length: usize,
}

/// Tokens that followed one earlier occurrence.
struct Continuation<'a> {
    tokens: Cow<'a, [TokenId]>,
    origin: Origin,
}

impl Lookup {
    pub(in crate::draft) fn new(config: PromptLookupConfig) -> Self {
        Self {
            config,
            ..Self::default()
        }
    }

    /// Adds continuations from earlier answers.
    pub(in crate::draft) fn add_store(&mut self, store: Arc<SuffixStore>) {
        self.store = Some(store);
    }

    /// Counts accepted tokens that came from earlier answers.
    pub(in crate::draft) fn note_stored(&self, accepted: usize) {
        if let Some(store) = self.store.as_ref().filter(|_| accepted > 0) {
            store.note_accepted(accepted);
        }
    }

    /// Starts a generation whose first token is `next`.
    pub(in crate::draft) fn begin(&mut self, prompt: &[TokenId], next: TokenId) {
        self.context.clear();
        self.context.extend_from_slice(prompt);
        self.context.push(next);
    }

    /// Appends the tokens emitted since the last call.
    pub(in crate::draft) fn advance(&mut self, accepted: &[TokenId], next: TokenId) {
        self.context.extend_from_slice(accepted);
        self.context.push(next);
    }

    /// Returns the continuations of earlier occurrences of the last tokens, as a tree below the
    /// last token.
    pub(in crate::draft) fn guesses(&self) -> Result<Guesses, TreeError> {
        let own = self.matches().into_iter().enumerate();
        let own = own.map(|(branch, found)| Continuation {
            tokens: Cow::Borrowed(&self.context[found.start..]),
            origin: Origin::own(found.length, branch),
        });
        let mut continuations = Vec::from_iter(own);
        if let Some(store) = &self.store {
            let PromptLookupConfig {
                max_branches,
                max_tokens,
                ..
            } = self.config;
            let stored = store.look_up(&self.context, max_branches, max_tokens);
            let stored = stored.into_iter().enumerate();
            continuations.extend(stored.map(|(branch, found)| Continuation {
                tokens: Cow::Owned(found.tokens),
                origin: Origin::stored(found.length, branch),
            }));
        }
        self.follow(&continuations)
    }

    /// Returns the earlier occurrences of the last tokens; the longest n-gram and the latest place
    /// come first.
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
                // Fast check: most places already differ in the last token.
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

    /// Builds a tree of continuations.
    fn follow(&self, continuations: &[Continuation<'_>]) -> Result<Guesses, TreeError> {
        let mut tree = TokenTree::new(self.context.last().copied().unwrap_or_default());
        let mut origins = Vec::new();
        let mut branches = Vec::from_iter(continuations.iter().map(|found| (found, NodeId::ROOT)));
        // Level by level, so that no branch uses up the token limit of another.
        for level in 0.. {
            branches.retain(|(found, _)| level < found.tokens.len());
            if branches.is_empty() {
                break;
            }
            for (found, node) in &mut branches {
                let token = found.tokens[level];
                *node = match tree.child_with(*node, token) {
                    Some(child) => child,
                    None if tree.n_nodes() > self.config.max_tokens => {
                        return Ok(Guesses { tree, origins });
                    }
                    None => {
                        origins.push(found.origin);
                        tree.push(*node, token)?
                    }
                };
            }
        }
        Ok(Guesses { tree, origins })
    }
}
