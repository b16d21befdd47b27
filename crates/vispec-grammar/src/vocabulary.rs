//! The tokens of a tokenizer as bytes, as needed by the parser.

use std::collections::BTreeSet;

use llguidance::toktrie::{TokRxInfo, TokTrie, TokenizerEnv};
use vispec_core::{TokenId, guarded};
use vispec_processor::{SequenceTokens, Tokenizer};

use crate::error::{GrammarError, reason};

/// Text for testing whether the tokenizer's tokens spell the text that they were made from.
const PROBE: &str = "{\"a\": [1, \"b c\"]}";

/// Tokens as bytes, and the tokenizer.
pub(crate) struct Vocabulary {
    tokenizer: Tokenizer,
    trie: TokTrie,
    is_canonical: bool,
}

impl Vocabulary {
    /// Creates the vocabulary of `tokenizer` for a target with `vocab_size` tokens; `ends` end the
    /// sequence.
    pub(crate) fn new(
        tokenizer: &Tokenizer,
        ends: &BTreeSet<TokenId>,
        vocab_size: usize,
    ) -> Result<Self, GrammarError> {
        let unusable = |reason: String| GrammarError::Tokenizer { reason };
        let json = tokenizer.to_json();
        let json = json.map_err(|error| unusable(error.to_string()))?;
        // The library panics on unknown vocabularies.
        let words = guarded("spelling tokens", || {
            llguidance::token_bytes_from_tokenizer_json(&json)
        });
        let words = words.map_err(|error| unusable(error.to_string()))?;
        let mut words = words.map_err(|error| unusable(reason(error)))?;
        words.resize(vocab_size, Vec::new());
        let ends = ends
            .iter()
            .copied()
            .filter(|&id| (id as usize) < vocab_size);
        let ends = Vec::from_iter(ends);
        let &[first, ..] = &*ends else {
            return Err(unusable("no token ends the sequence".to_owned()));
        };
        let size = u32::try_from(vocab_size).map_err(|error| unusable(error.to_string()))?;
        let trie = TokTrie::from(&TokRxInfo::new(size, first), &words).with_eos_tokens(&ends);
        let tokenizer = tokenizer.clone();
        let mut vocabulary = Self {
            tokenizer,
            trie,
            is_canonical: false,
        };
        vocabulary.is_canonical = vocabulary.tokens_of(PROBE.as_bytes()).is_some();
        Ok(vocabulary)
    }

    /// Returns the tokenizer's own tokens if they spell this text. Some tokenizers prepend a space,
    /// compose characters or find special tokens in the text.
    fn tokens_of(&self, text: &[u8]) -> Option<Vec<TokenId>> {
        let text = std::str::from_utf8(text).ok()?;
        let tokens = self.tokenizer.encode(text, SequenceTokens::Omit).ok()?;
        let known = |&token: &TokenId| (token as usize) < self.trie.vocab_size();
        let spells = tokens.iter().all(known) && self.trie.decode_raw(&tokens) == text.as_bytes();
        spells.then_some(tokens)
    }
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, text: &[u8]) -> Vec<TokenId> {
        let tokens = self.tokens_of(text);
        tokens.unwrap_or_else(|| self.trie.greedy_tokenize(text))
    }

    fn tokenize_is_canonical(&self) -> bool {
        self.is_canonical
    }
}
