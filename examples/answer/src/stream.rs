//! Streaming of text to stdout as soon as its tokens are final.

use std::io::Write;
use std::ops::ControlFlow;
use std::time::Duration;

use vispec_core::{GenerationObserver, TokenId, TokenTree, Verdict};
use vispec_processor::{Detokenizer, SpecialText, Tokenizer};

/// Colours of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// No colours.
    Plain,
    /// Text of accepted draft tokens is green.
    AcceptedGreen,
}

/// Writes accepted text to `out` and flushes after each cycle.
#[derive(Debug)]
pub struct TextStream<'t, W> {
    detokenizer: Detokenizer<'t>,
    out: W,
    /// Whether any text was written since the last line end.
    in_line: bool,
    paint: Paint,
    /// Number of drafted tokens among the next ones.
    accepted: usize,
    failure: Option<anyhow::Error>,
}

impl<'t, W: Write> TextStream<'t, W> {
    /// Creates a stream to `out`, without special tokens.
    pub fn new(tokenizer: &'t Tokenizer, out: W) -> Self {
        let detokenizer = Detokenizer::new(tokenizer, SpecialText::Skip);
        Self {
            detokenizer,
            out,
            in_line: false,
            paint: Paint::Plain,
            accepted: 0,
            failure: None,
        }
    }

    /// Sets the colours of the text.
    #[must_use]
    pub fn with_paint(mut self, paint: Paint) -> Self {
        self.paint = paint;
        self
    }

    fn write(&mut self, tokens: &[TokenId]) -> anyhow::Result<()> {
        let accepted = std::mem::take(&mut self.accepted).min(tokens.len());
        let (drafted, own) = tokens.split_at(accepted);
        let drafted = self.detokenizer.push(drafted)?;
        let own = self.detokenizer.push(own)?;
        match self.paint {
            Paint::AcceptedGreen if !drafted.is_empty() => {
                write!(self.out, "\x1b[32m{drafted}\x1b[0m{own}")?;
            }
            _ => write!(self.out, "{drafted}{own}")?,
        }
        self.in_line |= !(drafted.is_empty() && own.is_empty());
        Ok(self.out.flush()?)
    }

    /// Writes the remaining text and ends the line.
    ///
    /// # Errors
    /// The first error of decoding or writing since the start.
    pub fn finish(mut self) -> anyhow::Result<()> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let rest = self.detokenizer.finish()?;
        writeln!(self.out, "{rest}")?;
        Ok(self.out.flush()?)
    }

    /// Ends an open line after a failed generation.
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
    fn on_verify(&mut self, _: &TokenTree, verdict: &Verdict, _: Duration) {
        self.accepted = verdict.path.len() - 1;
    }

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
