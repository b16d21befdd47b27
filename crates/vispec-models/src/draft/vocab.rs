//! Drafting from part of the vocabulary: a smaller output head, which is much of a draft's cost.
//!
//! Lossless whatever is left out: the target verifies over all tokens, and a token that the draft
//! cannot propose is one that the target has to say itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use vispec_core::{BoxError, TokenId, TopK};

use crate::error::ModelError;
use crate::logits::top_k;
use crate::nn::Linear;

/// Tokens that a draft may propose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DraftVocab {
    /// The first so many ids. In vocabularies of byte-pair encodings, which most are, these are the
    /// tokens that were merged first, hence frequent ones.
    First(usize),
    /// A list as [`DraftVocabFile`] holds it.
    File(PathBuf),
}

/// A list of tokens, the most frequent first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DraftVocabFile {
    /// Number of tokens of the tokenizer that the list was made with; for people, since heads are
    /// often padded to more.
    pub vocab_size: usize,
    /// Ids, without repetition.
    pub tokens: Vec<TokenId>,
}

impl DraftVocab {
    /// The ids for a target of `vocab_size` tokens.
    ///
    /// # Errors
    /// [`ModelError::DraftVocab`] if there is none, or an id is out of range or occurs twice;
    /// [`ModelError::Io`] if the file cannot be read, [`ModelError::ConfigSyntax`] if it is no list.
    pub fn tokens(&self, vocab_size: usize) -> Result<Vec<TokenId>, ModelError> {
        match self {
            Self::First(n) if (1..=vocab_size).contains(n) => {
                let n = TokenId::try_from(*n).unwrap_or(TokenId::MAX);
                Ok((0..n).collect())
            }
            Self::First(n) => Err(ModelError::DraftVocab {
                path: PathBuf::from("--draft-vocab"),
                reason: format!("{n} tokens, expected 1 to {vocab_size}"),
            }),
            Self::File(path) => DraftVocabFile::read(path)?.checked(path, vocab_size),
        }
    }
}

impl DraftVocabFile {
    /// Reads a list.
    ///
    /// # Errors
    /// [`ModelError::Io`] if the file cannot be read, [`ModelError::ConfigSyntax`] if it is not a
    /// list.
    pub fn read(path: &Path) -> Result<Self, ModelError> {
        let text = fs::read_to_string(path).map_err(|source| ModelError::Io {
            path: path.to_owned(),
            source,
        })?;
        serde_json::from_str(&text).map_err(|source| ModelError::ConfigSyntax {
            path: path.to_owned(),
            source,
        })
    }

    fn checked(self, path: &Path, vocab_size: usize) -> Result<Vec<TokenId>, ModelError> {
        let wrong = |reason: String| {
            Err(ModelError::DraftVocab {
                path: path.to_owned(),
                reason,
            })
        };
        if self.tokens.is_empty() {
            return wrong("it lists no token".to_owned());
        }
        let mut seen = vec![false; vocab_size];
        for &token in &self.tokens {
            match seen.get_mut(token as usize) {
                None => {
                    return wrong(format!(
                        "token id {token} lies outside the target's vocabulary of {vocab_size}"
                    ));
                }
                Some(true) => return wrong(format!("token id {token} occurs twice")),
                Some(seen) => *seen = true,
            }
        }
        Ok(self.tokens)
    }
}

/// The target's output head as a draft uses it: all of it, or the rows of some tokens.
#[derive(Debug, Clone)]
pub struct DraftHead {
    linear: Linear,
    /// Token of each row, if they are not all there.
    tokens: Option<Arc<[TokenId]>>,
}

impl DraftHead {
    /// The whole head.
    #[must_use]
    pub fn new(linear: Linear) -> Self {
        Self {
            linear,
            tokens: None,
        }
    }

    /// The head cut to the rows of `tokens`.
    #[must_use]
    pub fn restricted(linear: &Linear, tokens: Vec<TokenId>) -> Self {
        Self {
            linear: linear.select_outputs(&tokens),
            tokens: Some(tokens.into()),
        }
    }

    /// Number of tokens, if they are not all.
    #[must_use]
    pub fn vocab_len(&self) -> Option<usize> {
        self.tokens.as_ref().map(|tokens| tokens.len())
    }

    /// Rows of the head.
    #[must_use]
    pub fn n_outputs(&self) -> usize {
        self.linear.n_outputs()
    }

    /// The `k` best tokens after each row of `hidden` `[rows, hidden]`; probabilities are those
    /// among the tokens of the head.
    pub(super) fn top_k(&self, hidden: Tensor<2>, k: usize) -> Result<TopK, BoxError> {
        let mut top = top_k(self.linear.forward(hidden), k)?;
        if let Some(tokens) = &self.tokens {
            for token in &mut top.tokens {
                *token = tokens[*token as usize];
            }
        }
        Ok(top)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(tokens: &[TokenId]) -> DraftVocabFile {
        DraftVocabFile {
            vocab_size: 10,
            tokens: tokens.to_vec(),
        }
    }

    #[test]
    fn lists_are_checked() {
        let path = Path::new("list.json");
        let reason = |tokens: &[TokenId]| list(tokens).checked(path, 10).unwrap_err().to_string();
        assert!(reason(&[]).contains("no token"));
        assert!(reason(&[1, 10]).contains("10 lies outside the target's vocabulary of 10"));
        assert!(reason(&[1, 3, 1]).contains("1 occurs twice"));
        assert_eq!(list(&[9, 0]).checked(path, 10).unwrap(), [9, 0]);
    }

    #[test]
    fn numbers_are_checked() {
        assert_eq!(DraftVocab::First(3).tokens(10).unwrap(), [0, 1, 2]);
        assert!(DraftVocab::First(0).tokens(10).is_err());
        assert!(DraftVocab::First(11).tokens(10).is_err());
    }
}
