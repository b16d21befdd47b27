//! Text to token ids and back.

use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::de::IgnoredAny;

use crate::error::{ProcessorError, Result};

/// Whether the tokenizer adds the tokens that open and close a sequence, such as `<s>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SequenceTokens {
    /// They are added.
    Add,
    /// They are not, because the text already has them.
    Omit,
}

/// Whether special tokens such as `</s>` show up in decoded text.
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
    path: PathBuf,
}

/// The tokenizer in the content of a file, or what is wrong with it.
fn parse(bytes: Vec<u8>) -> std::result::Result<tokenizers::Tokenizer, String> {
    let whole = serde_json::from_slice::<IgnoredAny>(&bytes);
    whole.map_err(|error| error.to_string())?;
    // The library panics where JSON is not of the shape that it expects.
    match std::panic::catch_unwind(|| tokenizers::Tokenizer::from_bytes(bytes)) {
        Ok(parsed) => parsed.map_err(|error| error.to_string()),
        Err(_) => Err("the library of tokenizers cannot make sense of it".to_owned()),
    }
}

impl Tokenizer {
    /// Reads `tokenizer.json` in the directory of a checkpoint.
    ///
    /// # Errors
    /// [`ProcessorError::MissingFile`], [`ProcessorError::Io`] or
    /// [`ProcessorError::TokenizerSyntax`].
    pub fn from_dir(dir: &Path) -> Result<Self> {
        Self::from_file(&dir.join("tokenizer.json"))
    }

    /// Reads a file in the format of the `tokenizers` library. Truncation and padding that the file
    /// asks for are switched off.
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
        Ok(Self { inner, path })
    }

    /// The file that the tokenizer was read from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Token ids of a text. Special tokens written in the text become their ids.
    ///
    /// # Errors
    /// [`ProcessorError::Tokenize`].
    pub fn encode(&self, text: &str, sequence_tokens: SequenceTokens) -> Result<Vec<u32>> {
        let add = sequence_tokens == SequenceTokens::Add;
        match self.inner.encode_fast(text, add) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(error) => Err(failed("encode", &error)),
        }
    }

    /// The same as [`Self::encode`], with the bytes of `text` that each token stands for. White space
    /// may be missing from them, as tokenizers see fit; tokens that the tokenizer adds have none.
    ///
    /// # Errors
    /// [`ProcessorError::Tokenize`].
    pub fn encode_with_places(
        &self,
        text: &str,
        sequence_tokens: SequenceTokens,
    ) -> Result<Vec<(u32, Range<usize>)>> {
        let add = sequence_tokens == SequenceTokens::Add;
        let encoding = self.inner.encode(text, add);
        let encoding = encoding.map_err(|error| failed("encode", &error))?;
        let places = encoding.get_offsets().iter();
        let ids = encoding.get_ids().iter().copied();
        Ok(ids.zip(places.map(|&(start, end)| start..end)).collect())
    }

    /// The text of token ids. Ids that the vocabulary lacks (models have padded vocabularies) give
    /// no text; bytes that are not UTF-8 give U+FFFD.
    ///
    /// # Errors
    /// [`ProcessorError::Tokenize`].
    pub fn decode(&self, ids: &[u32], special_text: SpecialText) -> Result<String> {
        self.inner
            .decode(ids, special_text == SpecialText::Skip)
            .map_err(|error| failed("decode", &error))
    }

    /// Number of tokens, added ones included. The model's vocabulary may be padded to more.
    #[must_use]
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Id of a token.
    #[must_use]
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Token with an id, as the vocabulary spells it.
    #[must_use]
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }
}

fn failed(action: &'static str, error: &tokenizers::Error) -> ProcessorError {
    ProcessorError::Tokenize {
        action,
        reason: error.to_string(),
    }
}
