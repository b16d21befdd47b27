//! Places in prompt and answer where the last few tokens stood before, and what followed there.

use super::PromptLookupConfig;
use super::chances::Origin;
use crate::{NodeId, TokenId, TokenTree, TreeError};

/// Prompt and answer so far, to be looked up in.
#[derive(Clone, Default, Debug)]
pub(in crate::draft) struct Lookup {
    config: PromptLookupConfig,
    /// Prompt and answer, the root of the next tree included.
    context: Vec<TokenId>,
}

/// An earlier occurrence of the last tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Match {
    /// Where its continuation starts.
    pub(super) start: usize,
    /// How many tokens agree.
    pub(super) length: usize,
}

/// Guesses as a tree.
#[derive(Clone, Debug)]
pub(in crate::draft) struct Guesses {
    pub(in crate::draft) tree: TokenTree,
    /// How each node but the root was found, in node order.
    pub(in crate::draft) origins: Vec<Origin>,
}

impl Lookup {
    pub(in crate::draft) fn new(config: PromptLookupConfig) -> Self {
        Self {
            config,
            context: Vec::new(),
        }
    }

    /// Starts a generation whose first token is `next`.
    pub(in crate::draft) fn begin(&mut self, prompt: &[TokenId], next: TokenId) {
        self.context.clear();
        self.context.extend_from_slice(prompt);
        self.context.push(next);
    }

    /// Goes on with what was emitted since.
    pub(in crate::draft) fn advance(&mut self, accepted: &[TokenId], next: TokenId) {
        self.context.extend_from_slice(accepted);
        self.context.push(next);
    }

    /// What followed earlier occurrences of the last tokens, as a tree below the last of them.
    pub(in crate::draft) fn guesses(&self) -> Result<Guesses, TreeError> {
        self.follow(&self.matches())
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

    /// The continuations of `matches`.
    fn follow(&self, matches: &[Match]) -> Result<Guesses, TreeError> {
        let mut tree = TokenTree::new(self.context.last().copied().unwrap_or_default());
        let mut origins = Vec::new();
        let mut branches: Vec<(usize, NodeId, Origin)> = matches
            .iter()
            .enumerate()
            .map(|(branch, found)| (found.start, NodeId::ROOT, Origin::new(found, branch)))
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
                    None if tree.n_nodes() > self.config.max_tokens => {
                        return Ok(Guesses { tree, origins });
                    }
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
        Ok(Guesses { tree, origins })
    }
}
