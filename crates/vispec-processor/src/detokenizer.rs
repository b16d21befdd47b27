//! Decoding of a growing answer, piece by piece.

use crate::error::Result;
use crate::tokenizer::{SpecialText, Tokenizer};

/// What decoders write for bytes that are not (yet) UTF-8.
const REPLACEMENT: char = '\u{fffd}';

/// Turns tokens into text as they come, and holds back text until its characters are complete.
///
/// The pieces joined together are what [`Tokenizer::decode`] gives for all tokens at once. Each
/// step decodes the last few tokens only: those since the last piece, and the ones before it that
/// decide whether a space comes in between.
#[derive(Debug, Clone)]
pub struct Detokenizer<'a> {
    tokenizer: &'a Tokenizer,
    special_text: SpecialText,
    /// Tokens since the start of the piece before the last one.
    window: Vec<u32>,
    /// How many tokens of the window have been written out.
    n_written: usize,
    /// Length in bytes of the text of these.
    written_len: usize,
}

impl<'a> Detokenizer<'a> {
    /// A decoder that has seen no tokens yet.
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

    /// Takes tokens and gives the text that is complete with them; often the empty string.
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

    /// Gives what was held back: an incomplete character as U+FFFD, or nothing. More tokens may
    /// follow, as the start of a new text.
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
