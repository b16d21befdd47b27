//! Observing a generation while it runs.

use std::ops::ControlFlow;
use std::time::Duration;

use crate::{FinishReason, GenerationStats, TokenId, TokenTree, Verdict};

/// Is told what happens during a generation; every method defaults to nothing.
///
/// Times are wall-clock. They are meaningful for a device that computes in the background too,
/// because picking tokens and reading back draft scores wait for it: the time of a draft ends with
/// its last read-back, that of a verify pass with the picks of the acceptance rule.
pub trait GenerationObserver {
    /// The prompt was read and the first token chosen.
    fn on_prefill(&mut self, prompt_tokens: usize, time: Duration) {
        let _ = (prompt_tokens, time);
    }

    /// A tree was drafted (and cut to what may still be emitted).
    fn on_draft(&mut self, tree: &TokenTree, time: Duration) {
        let _ = (tree, time);
    }

    /// A tree was verified.
    fn on_verify(&mut self, tree: &TokenTree, verdict: &Verdict, time: Duration) {
        let _ = (tree, verdict, time);
    }

    /// Tokens were emitted; `Break` ends the generation, and the tokens so far are kept.
    fn on_tokens(&mut self, tokens: &[TokenId]) -> ControlFlow<()> {
        let _ = tokens;
        ControlFlow::Continue(())
    }

    /// The generation ended without an error.
    fn on_finish(&mut self, reason: FinishReason, stats: &GenerationStats) {
        let _ = (reason, stats);
    }
}

/// Observes nothing.
impl GenerationObserver for () {}
