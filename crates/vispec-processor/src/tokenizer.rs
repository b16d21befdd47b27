//! Conversion of text to token ids and back.

use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;
use tokenizers::Encoding;

use crate::error::{ProcessorError, Result};
use crate::token_bound::TokenBound;

/// Maximum bytes of a piece of text whose tokens are counted separately.
const PIECE: usize = 32 << 10;
/// Extra tokens that a text may have when it is split into two pieces. The tokens of the one token
/// that is cut come on top; they may be as many as it has bytes.
const CUT_COST: usize = 32;
/// A text with at most this many bytes per allowed token is tokenised without counting first.
const SHORT: usize = 4;

/// Returns whether a result is still wanted; called from time to time during long work.
pub type Wanted<'a> = &'a dyn Fn() -> bool;

/// Whether the tokenizer adds the tokens that open and close a sequence, such as `<s>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceTokens {
    /// They are added.
    Add,
    /// They are not, because the text already has them.
    Omit,
}

/// Whether special tokens such as `</s>` appear in decoded text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialText {
    /// They are written out.
    Keep,
    /// They are left out.
    Skip,
}

/// The tokenizer of a checkpoint.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bound: TokenBound,
    path: PathBuf,
}

/// Parses a tokenizer from the content of a file, or returns what is wrong with it.
fn parse(bytes: Vec<u8>) -> std::result::Result<tokenizers::Tokenizer, String> {
    let whole = serde_json::from_slice::<IgnoredAny>(&bytes);
    whole.map_err(|error| error.to_string())?;
    // The library panics if the JSON does not have the structure that it expects.
    match std::panic::catch_unwind(|| tokenizers::Tokenizer::from_bytes(bytes)) {
        Ok(parsed) => parsed.map_err(|error| error.to_string()),
        Err(_) => Err("the tokenizers library cannot parse it".to_owned()),
    }
}

impl Tokenizer {
    /// Reads `tokenizer.json` in the directory of a checkpoint.
    ///
    /// # Errors
    /// [`ProcessorError::MissingFile`], [`ProcessorError::Io`] or
    /// [`ProcessorError::TokenizerSyntax`].
    pub(crate) fn from_dir(dir: &Path) -> Result<Self> {
        Self::from_file(&dir.join("tokenizer.json"))
    }

    /// Reads a file in the format of the `tokenizers` library. Ignores the truncation and padding
    /// that the file asks for.
    ///
    /// # Errors
    /// [`ProcessorError::MissingFile`], [`ProcessorError::Io`] or
    /// [`ProcessorError::TokenizerSyntax`].
    pub fn from_file(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                let advice = "convert slow tokenizers with save_pretrained of a fast one";
                return Err(ProcessorError::MissingFile { path, advice });
            }
            Err(source) => return Err(ProcessorError::Io { path, source }),
        };
        let syntax = |reason: String| ProcessorError::TokenizerSyntax {
            path: path.clone(),
            reason,
        };
        let mut inner = parse(bytes).map_err(syntax)?;
        let truncation = inner.with_truncation(None);
        truncation.map_err(|error| syntax(error.to_string()))?;
        inner.with_padding(None);
        let bound = TokenBound::of(&inner);
        Ok(Self { inner, bound, path })
    }

    /// Returns the file that the tokenizer was read from.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Refuses a text with far more than `limit` tokens before it is tokenised as a whole.
    ///
    /// A text that passes has at most `limit` tokens, or not many more. The memory used does not
    /// grow with the text. Tokens that open and close a sequence do not count.
    ///
    /// First the number of bytes is compared with that of the longest token; then tokens are
    /// counted piece by piece until there are too many. The number of bytes gives no bound if text
    /// may vanish (a normalizer that strips) or if a token may stand for any number of characters
    /// (fused unknown characters); no supported model has such a tokenizer.
    ///
    /// # Errors
    /// [`ProcessorError::TextTooLong`], never for a text that has at most `limit` tokens;
    /// [`ProcessorError::Unwanted`] if `wanted`, called for each piece, returns `false`;
    /// [`ProcessorError::Tokenize`].
    pub fn check_length(&self, text: &str, limit: usize, wanted: Wanted<'_>) -> Result<()> {
        let too_long = |least_tokens: usize| {
            Err(ProcessorError::TextTooLong {
                bytes: text.len(),
                least_tokens,
                limit,
            })
        };
        let by_bytes = self.bound.least_tokens(text);
        if by_bytes > limit {
            return too_long(by_bytes);
        }
        if text.len() <= limit.saturating_mul(SHORT).max(PIECE) {
            return Ok(());
        }
        let cut_cost = CUT_COST + self.bound.longest_token();
        let mut rest = text;
        let mut counted: usize = 0;
        while !rest.is_empty() {
            if !wanted() {
                return Err(ProcessorError::Unwanted);
            }
            let (piece, behind) = rest.split_at(cut(rest));
            rest = behind;
            let n_tokens = encoded(|| self.inner.encode_fast(piece, false))?.len();
            counted += n_tokens.saturating_sub(cut_cost);
            if counted > limit {
                return too_long(counted);
            }
        }
        Ok(())
    }

    /// Encodes a text to token ids. Special tokens written in the text become their ids.
    ///
    /// # Errors
    /// [`ProcessorError::Tokenize`].
    pub fn encode(&self, text: &str, sequence_tokens: SequenceTokens) -> Result<Vec<u32>> {
        let add = sequence_tokens == SequenceTokens::Add;
        let encoding = encoded(|| self.inner.encode_fast(text, add))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Like [`Self::encode`], but also returns the byte range of `text` that each token stands for.
    /// Some tokenizers leave white space out of the ranges; tokens that the tokenizer adds have
    /// empty ranges.
    ///
    /// # Errors
    /// [`ProcessorError::Tokenize`].
    pub(crate) fn encode_with_places(
        &self,
        text: &str,
        sequence_tokens: SequenceTokens,
    ) -> Result<Vec<(u32, Range<usize>)>> {
        let add = sequence_tokens == SequenceTokens::Add;
        let encoding = encoded(|| self.inner.encode(text, add))?;
        let places = encoding.get_offsets().iter();
        let ids = encoding.get_ids().iter().copied();
        Ok(ids.zip(places.map(|&(start, end)| start..end)).collect())
    }

    /// Decodes token ids to text. Ids that the vocabulary lacks (models pad their vocabularies)
    /// give no text; bytes that are not UTF-8 give U+FFFD.
    ///
    /// # Errors
    /// [`ProcessorError::Tokenize`].
    pub fn decode(&self, ids: &[u32], special_text: SpecialText) -> Result<String> {
        self.inner
            .decode(ids, special_text == SpecialText::Skip)
            .map_err(|error| failed("decode", &error))
    }

    /// Returns the tokenizer in the format of its file, for libraries that read such files.
    ///
    /// # Errors
    /// [`ProcessorError::Tokenize`].
    pub fn to_json(&self) -> Result<serde_json::Value> {
        let text = self.inner.to_string(false);
        let text = text.map_err(|error| failed("describe", &error))?;
        serde_json::from_str(&text).map_err(|error| failed("describe", &error.into()))
    }

    /// Returns the number of tokens, including added ones. The model's vocabulary may be padded to
    /// more.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Returns the id of a token.
    #[must_use]
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Returns the token with an id, as the vocabulary spells it.
    #[must_use]
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }
}

/// Returns where the first piece of a text ends: if possible at white space after a letter or
/// digit, where tokenizers split, too.
fn cut(text: &str) -> usize {
    if text.len() <= PIECE {
        return text.len();
    }
    let bytes = text.as_bytes();
    let between_words =
        |&at: &usize| bytes[at].is_ascii_whitespace() && bytes[at - 1].is_ascii_alphanumeric();
    let found = (PIECE / 2..=PIECE).rev().find(between_words);
    found.unwrap_or_else(|| text.floor_char_boundary(PIECE))
}

/// Encodes with the library, and turns its panics into errors.
fn encoded(
    encode: impl FnOnce() -> std::result::Result<Encoding, tokenizers::Error>,
) -> Result<Encoding> {
    // The library's regular expressions panic on more than ten million blanks in a row. They leave
    // no broken state behind.
    match std::panic::catch_unwind(AssertUnwindSafe(encode)) {
        Ok(encoding) => encoding.map_err(|error| failed("encode", &error)),
        Err(_) => Err(ProcessorError::Tokenize {
            action: "encode",
            reason: "the tokenizers library failed on this text".to_owned(),
        }),
    }
}

fn failed(action: &'static str, error: &tokenizers::Error) -> ProcessorError {
    ProcessorError::Tokenize {
        action,
        reason: error.to_string(),
    }
}
