//! From a request to the events that its client receives.

mod listener;

use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;
use vispec::{AnswerCycle, AnswerError, AnswerListener, Answered, Submission, SubmissionHandle};

use self::listener::{Asked, Listener};
use crate::metrics::Metrics;
use crate::model::AnswerModel;
use crate::request_memory::Room;

/// Events of the answers to a request: `Started`, then for each answer any number of `Cycle` (only
/// one with [`Pace::Whole`]) and an end. Events of several answers are interleaved.
///
/// The channel is unbounded, so that a client that reads slowly never holds up the model; its
/// content is bounded by the length of the answers.
#[derive(Debug)]
pub(crate) enum AnswerEvent {
    /// The prompt is valid and has this number of tokens.
    Started(usize),
    /// More text of the answer with this index.
    Cycle(u32, AnswerCycle),
    /// The end of the answer with this index.
    Finished(u32, Box<Answered>),
    /// The end of all answers.
    Failed(AnswerError),
}

/// How often a request receives events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// After each cycle.
    Cycles,
    /// Once, when an answer has ended: no other thread is woken earlier.
    Whole,
}

/// Phase of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Requests are accepted, but load balancers should send them elsewhere.
    Draining,
    /// Requests are no longer accepted.
    Closed,
    /// Answers are cut off.
    Stopped,
}

/// The model, its metrics, and the phase of the shutdown.
pub(crate) struct Answering {
    model: Arc<dyn AnswerModel>,
    metrics: Arc<Metrics>,
    phase: watch::Sender<Phase>,
}

impl Answering {
    pub(crate) fn new(model: Arc<dyn AnswerModel>, metrics: Arc<Metrics>) -> Self {
        let (phase, _) = watch::channel(Phase::Open);
        Self {
            model,
            metrics,
            phase,
        }
    }

    /// Asks for `choices` answers to a request.
    ///
    /// # Errors
    /// [`AnswerError::Busy`] if the queue is full, [`AnswerError::ShutDown`] once the server accepts
    /// no more requests.
    pub(crate) fn submit(
        &self,
        (submission, room): (Submission, Room),
        choices: u32,
        pace: Pace,
    ) -> Result<Answers, AnswerError> {
        let phase = self.phase.subscribe();
        if matches!(*phase.borrow(), Phase::Closed | Phase::Stopped) {
            return Err(AnswerError::ShutDown);
        }
        let (sender, events) = unbounded_channel();
        let asked = Arc::new(Asked::new(
            choices,
            Arc::clone(&self.metrics),
            phase.clone(),
            room,
        ));
        let listeners = (0..choices).map(|index| -> Box<dyn AnswerListener + Send> {
            let (asked, sender) = (Arc::clone(&asked), sender.clone());
            Box::new(Listener::new(index, pace, sender, asked))
        });
        let submission = self.model.submit(submission, listeners.collect())?;
        Ok(Answers {
            events,
            phase,
            _submission: submission,
        })
    }

    /// Returns whether the server should receive requests.
    pub(crate) fn is_open(&self) -> bool {
        *self.phase.borrow() == Phase::Open
    }

    /// Enters the draining phase, in which requests are still accepted.
    pub(crate) fn drain(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Accepts no more requests; waiting ones are still answered.
    pub(crate) fn close(&self) {
        self.phase.send_replace(Phase::Closed);
    }

    /// Cuts off running and waiting answers.
    pub(crate) fn stop(&self) {
        self.phase.send_replace(Phase::Stopped);
    }
}

/// The answers to one request. Dropping them cancels the request.
pub(crate) struct Answers {
    events: UnboundedReceiver<AnswerEvent>,
    phase: watch::Receiver<Phase>,
    _submission: SubmissionHandle,
}

impl Answers {
    /// Waits for the next event; `None` if the answers were lost.
    pub(crate) async fn next(&mut self) -> Option<AnswerEvent> {
        tokio::select! {
            biased;
            Ok(_) = self.phase.wait_for(|phase| *phase == Phase::Stopped) => {
                Some(AnswerEvent::Failed(AnswerError::ShutDown))
            }
            event = self.events.recv() => event,
        }
    }
}
