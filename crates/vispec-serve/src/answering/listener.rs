//! From the scheduler's thread to the client that waits for an answer.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use vispec::{AnswerCycle, AnswerError, AnswerListener, Answered};

use super::{AnswerEvent, Pace, Phase};
use crate::metrics::{Metrics, Outcome};
use crate::request_memory::Room;

/// State shared by the answers to one request.
pub(super) struct Asked {
    submitted: Instant,
    metrics: Arc<Metrics>,
    phase: watch::Receiver<Phase>,
    heard: Mutex<Heard>,
    /// Log span of the request.
    span: tracing::Span,
    /// The memory that the request holds, freed with its last answer.
    _room: Room,
}

/// What the client has received of a request.
struct Heard {
    started: bool,
    /// Answers that have not ended.
    left: u32,
    /// Outcome of the first answer that did not come to its end.
    failure: Option<Outcome>,
}

impl Asked {
    pub(super) fn new(
        choices: u32,
        metrics: Arc<Metrics>,
        phase: watch::Receiver<Phase>,
        room: Room,
    ) -> Self {
        Self {
            submitted: Instant::now(),
            metrics,
            phase,
            heard: Mutex::new(Heard {
                started: false,
                left: choices,
                failure: None,
            }),
            span: tracing::Span::current(),
            _room: room,
        }
    }

    /// Notes that an answer starts; returns `true` for the first one.
    fn start(&self) -> bool {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = !heard.started;
        heard.started = true;
        if is_first {
            self.metrics.waited(self.submitted.elapsed());
        }
        is_first
    }

    /// Notes that an answer has ended, and counts the request after the last one. Returns `true` if
    /// this is the first of its answers that failed.
    fn end(&self, outcome: Outcome) -> bool {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first_failure = !outcome.is_answer() && heard.failure.is_none();
        if is_first_failure {
            heard.failure = Some(outcome);
        }
        heard.left = heard.left.saturating_sub(1);
        if heard.left == 0 {
            self.metrics.count(heard.failure.unwrap_or(outcome));
        }
        is_first_failure
    }

    /// Outcome of an answer; one that is cancelled during a shutdown counts as cut off by it.
    fn outcome(&self, ended: &Result<Answered, AnswerError>) -> Outcome {
        match Outcome::of(ended) {
            Outcome::Cancelled if *self.phase.borrow() == Phase::Stopped => Outcome::ShutDown,
            outcome => outcome,
        }
    }
}

/// Passes one answer on to the client.
pub(super) struct Listener {
    index: u32,
    pace: Pace,
    events: UnboundedSender<AnswerEvent>,
    asked: Arc<Asked>,
    /// Text not sent yet, for a client that receives its answer in one piece.
    held: AnswerCycle,
    /// Time of the last cycle.
    last: Option<Instant>,
}

impl Listener {
    pub(super) fn new(
        index: u32,
        pace: Pace,
        events: UnboundedSender<AnswerEvent>,
        asked: Arc<Asked>,
    ) -> Self {
        Self {
            index,
            pace,
            events,
            asked,
            held: AnswerCycle::default(),
            last: None,
        }
    }

    fn send(&self, event: AnswerEvent) -> ControlFlow<()> {
        match self.events.send(event) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

impl AnswerListener for Listener {
    fn on_start(&mut self, prompt_tokens: usize) -> ControlFlow<()> {
        if self.asked.start() {
            return self.send(AnswerEvent::Started(prompt_tokens));
        }
        ControlFlow::Continue(())
    }

    fn on_cycle(&mut self, cycle: AnswerCycle) -> ControlFlow<()> {
        let now = Instant::now();
        let metrics = &self.asked.metrics;
        match self.last.replace(now) {
            None => metrics.first_token(now.duration_since(self.asked.submitted)),
            Some(last) => metrics.next_tokens(now.duration_since(last)),
        }
        match self.pace {
            Pace::Cycles => self.send(AnswerEvent::Cycle(self.index, cycle)),
            Pace::Whole => {
                self.held.pieces.extend(cycle.pieces);
                self.held.log_probs.extend(cycle.log_probs);
                if self.events.is_closed() {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            }
        }
    }

    fn on_end(&mut self, ended: Result<Answered, AnswerError>) {
        // Counted first, so that a client that has the answer finds it counted.
        if let Ok(answered) = &ended {
            self.asked.metrics.answered(answered);
        }
        let is_first_failure = self.asked.end(self.asked.outcome(&ended));
        let event = match ended {
            Ok(answered) => {
                if self.pace == Pace::Whole {
                    let held = std::mem::take(&mut self.held);
                    // If the client has disconnected, nothing is lost, here and below.
                    let _ = self.send(AnswerEvent::Cycle(self.index, held));
                }
                AnswerEvent::Finished(self.index, Box::new(answered))
            }
            Err(error) => {
                if let (AnswerError::Failed(cause), true) = (&error, is_first_failure) {
                    let _request = self.asked.span.enter();
                    tracing::error!(error = %with_causes(&**cause), "the model failed");
                }
                AnswerEvent::Failed(error)
            }
        };
        let _ = self.send(event);
    }
}

/// Joins the messages of an error and its causes, for the log.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    Vec::from_iter(causes.map(ToString::to_string)).join(": ")
}
