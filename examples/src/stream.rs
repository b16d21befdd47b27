//! Text on stdout as soon as its tokens are final.

use std::io::Write;
use std::ops::ControlFlow;

use vispec_core::{GenerationObserver, TokenId};
use vispec_processor::{Detokenizer, SpecialText, Tokenizer};

/// Writes accepted text to `out` and flushes after each cycle.
#[derive(Debug)]
pub struct TextStream<'t, W> {
    detokenizer: Detokenizer<'t>,
    out: W,
    /// Whether anything was written since the last end of a line.
    in_line: bool,
    failure: Option<anyhow::Error>,
}

impl<'t, W: Write> TextStream<'t, W> {
    /// Streams to `out`, special tokens left out.
    pub fn new(tokenizer: &'t Tokenizer, out: W) -> Self {
        let detokenizer = Detokenizer::new(tokenizer, SpecialText::Skip);
        Self {
            detokenizer,
            out,
            in_line: false,
            failure: None,
        }
    }

    fn write(&mut self, tokens: &[TokenId]) -> anyhow::Result<()> {
        let text = self.detokenizer.push(tokens)?;
        self.out.write_all(text.as_bytes())?;
        self.in_line |= !text.is_empty();
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

    /// Ends the line if there is one, after a generation that failed.
    ///
    /// # Errors
    /// If the line cannot be written.
    pub fn abandon(mut self) -> anyhow::Result<()> {
        if self.in_line {
            writeln!(self.out)?;
        }
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
