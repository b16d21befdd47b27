//! Observers of a running generation.

use std::ops::ControlFlow;
use std::time::Duration;

use crate::{FinishReason, GenerationStats, TokenId, TokenTree, Verdict};

/// Receives the events of a generation; every method does nothing by default.
///
/// Times are wall-clock times. They are also meaningful for a device that computes in the
/// background, because picking tokens and reading back draft scores wait for the device: drafting
/// ends with its last read-back, and a verify pass ends with the picks of the acceptance rule.
pub trait GenerationObserver {
    /// Called after the prompt was read and the first token chosen.
    fn on_prefill(&mut self, prompt_tokens: usize, time: Duration) {
        let _ = (prompt_tokens, time);
    }

    /// Called after a tree was drafted and cut to the tokens that may still be emitted.
    fn on_draft(&mut self, tree: &TokenTree, time: Duration) {
        let _ = (tree, time);
    }

    /// Called after a tree was verified.
    fn on_verify(&mut self, tree: &TokenTree, verdict: &Verdict, time: Duration) {
        let _ = (tree, verdict, time);
    }

    /// Called after tokens were emitted. `Break` ends the generation; the tokens so far are kept.
    fn on_tokens(&mut self, tokens: &[TokenId]) -> ControlFlow<()> {
        let _ = tokens;
        ControlFlow::Continue(())
    }

    /// Called after the generation ended without an error.
    fn on_finish(&mut self, reason: FinishReason, stats: &GenerationStats) {
        let _ = (reason, stats);
    }
}

/// Observes nothing.
impl GenerationObserver for () {}
