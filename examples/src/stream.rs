//! Text on stdout as soon as its tokens are final.

use std::io::Write;
use std::ops::ControlFlow;

use vispec_core::{GenerationObserver, TokenId};
use vispec_processor::{Detokenizer, SpecialText, Tokenizer};

/// Writes accepted text to `out` and flushes after each cycle.
pub struct TextStream<'t, W> {
    detokenizer: Detokenizer<'t>,
    out: W,
    failure: Option<anyhow::Error>,
}

impl<'t, W: Write> TextStream<'t, W> {
    /// Streams to `out`, special tokens left out.
    pub fn new(tokenizer: &'t Tokenizer, out: W) -> Self {
        let detokenizer = Detokenizer::new(tokenizer, SpecialText::Skip);
        Self {
            detokenizer,
            out,
            failure: None,
        }
    }

    fn write(&mut self, tokens: &[TokenId]) -> anyhow::Result<()> {
        let text = self.detokenizer.push(tokens)?;
        self.out.write_all(text.as_bytes())?;
        Ok(self.out.flush()?)
    }

    /// Writes what is left and ends the line.
    ///
    /// # Errors
    /// The first failure to decode or to write since the start.
    pub fn finish(mut self) -> anyhow::Result<()> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let rest = self.detokenizer.finish()?;
        writeln!(self.out, "{rest}")?;
        Ok(self.out.flush()?)
    }
}

impl<W: Write> GenerationObserver for TextStream<'_, W> {
    fn on_tokens(&mut self, tokens: &[TokenId]) -> ControlFlow<()> {
        match self.write(tokens) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                self.failure = Some(error);
                ControlFlow::Break(())
            }
        }
    }
}
