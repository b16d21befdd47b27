//! An answer as an iterator and as a stream.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_channel::{Receiver, Sender, unbounded};
use futures_core::Stream;

use crate::answer::{AnswerCycle, AnswerError, AnswerListener, Answered};
use crate::engine::Engine;
use crate::submission::{CancelHandle, Submission, SubmissionHandle};

/// What the scheduler tells. The channel has no bound; what it holds is bounded by the length of
/// the answer.
#[derive(Debug)]
enum Event {
    Cycle(AnswerCycle),
    Ended(Box<Result<Answered, AnswerError>>),
}

/// A growing answer: an iterator over the cycles of decoding that waits for the next one. Dropping
/// it ends the answer.
#[derive(Debug)]
pub struct Answer {
    /// `None` when the answer has ended.
    events: Option<Pin<Box<Receiver<Event>>>>,
    answered: Option<Answered>,
    cancel: CancelHandle,
    _running: SubmissionHandle,
    /// The engine stops with its last handle.
    _engine: Engine,
}

impl Answer {
    pub(crate) fn start(engine: &Engine, submission: Submission) -> Result<Self, AnswerError> {
        let (sender, events) = unbounded();
        let running = engine.submit(submission, Box::new(Listener(sender)))?;
        Ok(Self {
            events: Some(Box::pin(events)),
            answered: None,
            cancel: running.cancel_handle(),
            _running: running,
            _engine: engine.clone(),
        })
    }

    /// Ends this answer from elsewhere.
    #[must_use]
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    /// Counts and times, once the answer has ended.
    #[must_use]
    pub fn answered(&self) -> Option<&Answered> {
        self.answered.as_ref()
    }

    /// Waits for the end and gives the text that has not been taken yet.
    ///
    /// # Errors
    /// Those of the answer.
    pub fn text(&mut self) -> Result<String, AnswerError> {
        let mut text = String::new();
        for cycle in self {
            text.push_str(&cycle?.text());
        }
        Ok(text)
    }

    /// The same answer for asynchronous code.
    #[must_use]
    pub fn into_stream(self) -> AnswerStream {
        AnswerStream { answer: self }
    }

    /// What an event, or the lack of one, means to whoever waits for the next cycle.
    fn take(&mut self, event: Option<Event>) -> Option<Result<AnswerCycle, AnswerError>> {
        let outcome = match event {
            Some(Event::Cycle(cycle)) => return Some(Ok(cycle)),
            Some(Event::Ended(outcome)) => *outcome,
            None => Err(AnswerError::failed("the answer was lost")),
        };
        self.events = None;
        match outcome {
            Ok(answered) => {
                self.answered = Some(answered);
                None
            }
            Err(error) => Some(Err(error)),
        }
    }
}

impl Iterator for Answer {
    type Item = Result<AnswerCycle, AnswerError>;

    /// Waits for the next cycle. It blocks the thread; asynchronous code uses
    /// [`Answer::into_stream`].
    fn next(&mut self) -> Option<Self::Item> {
        let event = self.events.as_ref()?.recv_blocking().ok();
        self.take(event)
    }
}

/// An [`Answer`] as an asynchronous stream, for any runtime. Dropping it ends the answer.
#[derive(Debug)]
pub struct AnswerStream {
    answer: Answer,
}

impl AnswerStream {
    /// Ends this answer from elsewhere.
    #[must_use]
    pub fn cancel_handle(&self) -> CancelHandle {
        self.answer.cancel_handle()
    }

    /// Counts and times, once the answer has ended.
    #[must_use]
    pub fn answered(&self) -> Option<&Answered> {
        self.answer.answered()
    }
}

impl Stream for AnswerStream {
    type Item = Result<AnswerCycle, AnswerError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let answer = &mut self.get_mut().answer;
        match &mut answer.events {
            None => Poll::Ready(None),
            Some(events) => (events.as_mut().poll_next(context)).map(|event| answer.take(event)),
        }
    }
}

struct Listener(Sender<Event>);

impl AnswerListener for Listener {
    fn on_cycle(&mut self, cycle: AnswerCycle) -> ControlFlow<()> {
        match self.0.try_send(Event::Cycle(cycle)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    fn on_end(&mut self, outcome: Result<Answered, AnswerError>) {
        // Whoever dropped the answer does not mind.
        let _ = self.0.try_send(Event::Ended(Box::new(outcome)));
    }
}
