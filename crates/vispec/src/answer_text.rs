//! Turns tokens into the text of an answer: whole characters, cut before a stop string.

use vispec_core::TokenId;
use vispec_processor::{Detokenizer, ProcessorError, SpecialText, Tokenizer};

use crate::stop_strings::{Scanned, StopStrings};

/// The text of an answer in progress.
#[derive(Debug)]
pub(crate) struct AnswerText<'t> {
    detokenizer: Detokenizer<'t>,
    stops: StopStrings,
}

impl<'t> AnswerText<'t> {
    /// Creates a text without special tokens that ends before any of the stop strings.
    pub(crate) fn new(tokenizer: &'t Tokenizer, stops: &[String]) -> Self {
        Self {
            detokenizer: Detokenizer::new(tokenizer, SpecialText::Skip),
            stops: StopStrings::new(stops),
        }
    }

    /// Returns the text that the next token makes final.
    ///
    /// # Errors
    /// Returns the errors of the tokenizer.
    pub(crate) fn push(&mut self, token: TokenId) -> Result<Scanned, ProcessorError> {
        Ok(self.stops.push(&self.detokenizer.push(&[token])?))
    }

    /// Returns the remaining text after the last token.
    ///
    /// # Errors
    /// Returns the errors of the tokenizer.
    pub(crate) fn finish(&mut self) -> Result<Scanned, ProcessorError> {
        Ok(match self.stops.push(&self.detokenizer.finish()?) {
            Scanned::Text(text) => Scanned::Text(text + &self.stops.finish()),
            stopped @ Scanned::Stopped(_) => stopped,
        })
    }
}
