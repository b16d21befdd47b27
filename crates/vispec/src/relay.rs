//! Turns the tokens of a generation into events for its listener.

use std::ops::ControlFlow;
use std::time::Duration;

use vispec_core::{
    FinishReason, GenerationObserver, GenerationStats, PickLog, PickedLogProbs, SpeculationReason,
    TokenId, TokenTree, Verdict, guarded,
};
use vispec_models::EncodeTimes;
use vispec_processor::{ProcessorError, SpecialText, Tokenizer};

use crate::answer::{
    AnswerCycle, AnswerEnd, AnswerError, AnswerListener, Answered, Piece, TokenLogProbs,
};
use crate::answer_text::AnswerText;
use crate::stop_strings::Scanned;

/// A listener that can be sent to the scheduler's thread.
pub(crate) type BoxedListener = Box<dyn AnswerListener + Send>;

/// State of a relay; any state but `Going` ends the generation.
#[derive(Debug)]
enum RelayState {
    Going,
    /// A stop string is complete.
    Stopped,
    /// The listener is gone or does not want the rest.
    Unwanted,
    Failed(ProcessorError),
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It ended on its own.
    Finished(FinishReason),
    /// It was cancelled.
    Cancelled,
    /// It reached its deadline.
    Deadline,
}

/// A generation that has ended.
pub(crate) struct Ended {
    pub(crate) ending: Ending,
    pub(crate) stats: GenerationStats,
    pub(crate) speculation: Vec<SpeculationReason>,
}

/// Passes an answer on to its listener as text.
pub(crate) struct Relay<'a> {
    text: AnswerText<'a>,
    tokenizer: &'a Tokenizer,
    log: Option<PickLog>,
    listener: BoxedListener,
    times: EncodeTimes,
    /// Number of draft tokens on the last accepted path.
    path_len: usize,
    nodes: usize,
    completion_tokens: usize,
    state: RelayState,
}

impl<'a> Relay<'a> {
    /// Creates a relay for an answer that ends before any of the strings in `stop`.
    pub(crate) fn new(
        tokenizer: &'a Tokenizer,
        stop: &[String],
        log: Option<PickLog>,
        listener: BoxedListener,
        times: EncodeTimes,
    ) -> Self {
        Self {
            text: AnswerText::new(tokenizer, stop),
            tokenizer,
            log,
            listener,
            times,
            path_len: 0,
            nodes: 0,
            completion_tokens: 0,
            state: RelayState::Going,
        }
    }

    /// Reports the end of the answer to its listener.
    pub(crate) fn end(mut self, outcome: Result<Ended, AnswerError>) {
        let outcome = outcome.and_then(|ended| {
            // This may send the rest of the text, and listeners may panic.
            let end = guarded("a listener", || self.last_words(ended.ending));
            Ok(Answered {
                end: end.map_err(AnswerError::failed)??,
                completion_tokens: self.completion_tokens,
                stats: ended.stats,
                speculation: ended.speculation,
                preprocess: self.times.preprocess,
                vision: self.times.vision,
            })
        });
        tell_end(self.listener, outcome);
    }

    fn scanned(&mut self, scanned: Scanned, drafted: bool, pieces: &mut Vec<Piece>) {
        let text = match scanned {
            Scanned::Text(text) => text,
            Scanned::Stopped(text) => {
                self.state = RelayState::Stopped;
                text
            }
        };
        if !text.is_empty() {
            pieces.push(Piece { text, drafted });
        }
    }

    /// Returns the log-probabilities of the first `emitted` tokens of a cycle.
    fn log_probs(&self, emitted: usize) -> Result<Vec<TokenLogProbs>, ProcessorError> {
        let picked = self.log.as_ref().map(PickLog::take).unwrap_or_default();
        let text = |token: TokenId| self.tokenizer.decode(&[token], SpecialText::Keep);
        let told = picked.into_iter().take(emitted).map(|picked| {
            let PickedLogProbs {
                token,
                log_prob,
                top,
            } = picked;
            let top = top.into_iter();
            let top = top.map(|(token, log_prob)| Ok((text(token)?, log_prob)));
            Ok(TokenLogProbs {
                token: text(token)?,
                log_prob,
                top: top.collect::<Result<_, ProcessorError>>()?,
            })
        });
        told.collect()
    }

    /// Sends the text that was held back and returns why the answer ended.
    fn last_words(&mut self, ending: Ending) -> Result<AnswerEnd, AnswerError> {
        if ending == Ending::Cancelled {
            self.state = RelayState::Unwanted;
        }
        if let RelayState::Going = self.state {
            let mut pieces = Vec::new();
            let rest = self.text.finish().map_err(AnswerError::failed)?;
            self.scanned(rest, false, &mut pieces);
            if !pieces.is_empty() {
                let last = AnswerCycle {
                    pieces,
                    ..AnswerCycle::default()
                };
                if self.listener.on_cycle(last).is_break() {
                    return Ok(AnswerEnd::Cancelled);
                }
            }
        }
        match std::mem::replace(&mut self.state, RelayState::Unwanted) {
            RelayState::Stopped => Ok(AnswerEnd::Stop),
            RelayState::Unwanted => Ok(AnswerEnd::Cancelled),
            RelayState::Failed(error) => Err(AnswerError::failed(error)),
            RelayState::Going => Ok(match ending {
                Ending::Deadline => AnswerEnd::Deadline,
                Ending::Finished(FinishReason::Stop) => AnswerEnd::Stop,
                Ending::Finished(_) | Ending::Cancelled => AnswerEnd::Length,
            }),
        }
    }
}

/// Reports the end of an answer to its listener and drops the listener.
pub(crate) fn tell_end(mut listener: BoxedListener, outcome: Result<Answered, AnswerError>) {
    // The listener gets no further calls, so the state that a panic leaves it in does not matter.
    let _ = guarded("a listener", || listener.on_end(outcome));
    let _ = guarded("a listener", || drop(listener));
}

impl GenerationObserver for Relay<'_> {
    fn on_verify(&mut self, tree: &TokenTree, verdict: &Verdict, _: Duration) {
        self.path_len = verdict.path.len() - 1;
        self.nodes = tree.n_nodes();
    }

    /// Works token by token, so that text and count end at the same token whatever was drafted.
    fn on_tokens(&mut self, tokens: &[TokenId]) -> ControlFlow<()> {
        let mut pieces = Vec::new();
        let mut emitted = 0;
        for &token in tokens {
            match self.text.push(token) {
                Ok(scanned) => self.scanned(scanned, emitted < self.path_len, &mut pieces),
                Err(error) => self.state = RelayState::Failed(error),
            }
            emitted += 1;
            if !matches!(self.state, RelayState::Going) {
                break;
            }
        }
        self.completion_tokens += emitted;
        let log_probs = self.log_probs(emitted).unwrap_or_else(|error| {
            self.state = RelayState::Failed(error);
            Vec::new()
        });
        let cycle = AnswerCycle {
            tokens: emitted,
            accepted: emitted.min(self.path_len),
            nodes: self.nodes,
            pieces,
            log_probs,
        };
        let wanted = self.listener.on_cycle(cycle);
        if wanted.is_break() {
            self.state = RelayState::Unwanted;
        }
        if matches!(self.state, RelayState::Going) {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }
}
