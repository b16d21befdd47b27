//! From a request to what its client hears of the answers.

mod listener;

use std::sync::Arc;

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::sync::watch;
use vispec::{AnswerCycle, AnswerError, AnswerListener, Answered, Submission, SubmissionHandle};

use self::listener::{Asked, Listener};
use crate::metrics::Metrics;
use crate::model::AnswerModel;
use crate::request_memory::Room;

/// What a request hears of its answers: `Started`, then of each of them any number of `Cycle`, or
/// one by [`Pace::Whole`], and an end. Those of several answers come as they are made.
///
/// The channel has no bound, so that a client that reads slowly never holds up the model; what it
/// holds is bounded by the length of the answers.
#[derive(Debug)]
pub(crate) enum AnswerEvent {
    /// The prompt is in order and has so many tokens.
    Started(usize),
    /// More text of the answer with this index.
    Cycle(u32, AnswerCycle),
    /// The end of the answer with this index.
    Finished(u32, Box<Answered>),
    /// The end of all answers.
    Failed(AnswerError),
}

/// How often a request hears of its answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// With each cycle.
    Cycles,
    /// Once, when an answer has ended: no other thread is woken before.
    Whole,
}

/// How far a shutdown has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Requests are taken, but others should have them.
    Draining,
    /// Requests are not taken any more.
    Closed,
    /// Answers are cut off.
    Stopped,
}

/// The model, and whether its answers are still wanted.
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

    /// Asks for so many answers to a request.
    ///
    /// # Errors
    /// [`AnswerError::Busy`] if there is no place, [`AnswerError::ShutDown`] if none is taken.
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

    /// Whether requests are welcome.
    pub(crate) fn is_open(&self) -> bool {
        *self.phase.borrow() == Phase::Open
    }

    /// Takes requests that come all the same.
    pub(crate) fn drain(&self) {
        self.phase.send_replace(Phase::Draining);
    }

    /// Takes no more requests; those that wait are still answered.
    pub(crate) fn close(&self) {
        self.phase.send_replace(Phase::Closed);
    }

    /// Cuts off the answers that run or wait.
    pub(crate) fn stop(&self) {
        self.phase.send_replace(Phase::Stopped);
    }
}

/// The answers to one request. Dropping them takes the request back.
pub(crate) struct Answers {
    events: UnboundedReceiver<AnswerEvent>,
    phase: watch::Receiver<Phase>,
    _submission: SubmissionHandle,
}

impl Answers {
    /// Waits for what comes next; `None` if the answers were lost.
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
