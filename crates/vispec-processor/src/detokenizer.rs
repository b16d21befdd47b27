//! Incremental decoding of a growing answer.

use crate::error::Result;
use crate::tokenizer::{SpecialText, Tokenizer};

/// Character that decoders write for bytes that are not (yet) UTF-8.
const REPLACEMENT: char = '\u{fffd}';

/// Turns tokens into text as they arrive, and holds back text until its characters are complete.
///
/// The joined pieces equal the result of [`Tokenizer::decode`] for all tokens at once. Each step
/// decodes only the last few tokens: those since the last piece, and those before it that decide
/// whether a space comes in between.
#[derive(Debug, Clone)]
pub struct Detokenizer<'a> {
    tokenizer: &'a Tokenizer,
    special_text: SpecialText,
    /// Tokens since the start of the piece before the last one.
    window: Vec<u32>,
    /// Number of tokens of the window whose text has been returned.
    n_written: usize,
    /// Length of that text in bytes.
    written_len: usize,
}

impl<'a> Detokenizer<'a> {
    /// Creates a decoder that has seen no tokens yet.
    #[must_use]
    pub fn new(tokenizer: &'a Tokenizer, special_text: SpecialText) -> Self {
        Self {
            tokenizer,
            special_text,
            window: Vec::new(),
            n_written: 0,
            written_len: 0,
        }
    }

    /// Adds tokens and returns the text that they complete; often the empty string.
    ///
    /// # Errors
    /// [`ProcessorError::Tokenize`](crate::ProcessorError::Tokenize).
    pub fn push(&mut self, ids: &[u32]) -> Result<String> {
        let mut out = String::new();
        for &id in ids {
            self.window.push(id);
            let text = self.tokenizer.decode(&self.window, self.special_text)?;
            if text.len() <= self.written_len || text.ends_with(REPLACEMENT) {
                continue;
            }
            out.push_str(text.get(self.written_len..).unwrap_or_default());
            self.window.drain(..self.n_written);
            self.n_written = self.window.len();
            self.written_len = self
                .tokenizer
                .decode(&self.window, self.special_text)?
                .len();
        }
        Ok(out)
    }

    /// Returns the text held back: an incomplete character as U+FFFD, or nothing. Tokens pushed
    /// afterwards start a new text.
    ///
    /// # Errors
    /// [`ProcessorError::Tokenize`](crate::ProcessorError::Tokenize).
    pub fn finish(&mut self) -> Result<String> {
        let text = self.tokenizer.decode(&self.window, self.special_text)?;
        let rest = text.get(self.written_len..).unwrap_or_default().to_owned();
        self.window.clear();
        self.n_written = 0;
        self.written_len = 0;
        Ok(rest)
    }
}
