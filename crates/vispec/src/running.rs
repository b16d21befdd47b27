//! An answer as an iterator and as a stream.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_channel::{Receiver, Sender, unbounded};
use futures_core::Stream;

use crate::answer::{AnswerCycle, AnswerError, AnswerListener, Answered};
use crate::engine::Engine;
use crate::submission::{CancelHandle, Submission, SubmissionHandle};

/// An event from the scheduler. The channel is unbounded, but its contents are bounded by the
/// length of the answer.
#[derive(Debug)]
enum Event {
    Cycle(AnswerCycle),
    Ended(Box<Result<Answered, AnswerError>>),
}

/// An answer in progress: an iterator over the decoding cycles that blocks until the next one.
/// Dropping it ends the answer.
#[derive(Debug)]
pub struct Answer {
    /// `None` once the answer has ended.
    events: Option<Pin<Box<Receiver<Event>>>>,
    answered: Option<Answered>,
    cancel: CancelHandle,
    _running: SubmissionHandle,
    /// Keeps the engine alive, which stops with its last handle.
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

    /// Returns a handle that ends this answer from elsewhere.
    #[must_use]
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    /// Returns counts and times once the answer has ended.
    #[must_use]
    pub fn answered(&self) -> Option<&Answered> {
        self.answered.as_ref()
    }

    /// Waits for the end and returns the text that the iterator has not yielded yet.
    ///
    /// # Errors
    /// Returns the errors of the answer.
    pub fn text(&mut self) -> Result<String, AnswerError> {
        let mut text = String::new();
        for cycle in self {
            text.push_str(&cycle?.text());
        }
        Ok(text)
    }

    /// Turns the answer into an asynchronous stream.
    #[must_use]
    pub fn into_stream(self) -> AnswerStream {
        AnswerStream { answer: self }
    }

    /// Turns an event, or a closed channel, into the next item of the iterator.
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

    /// Waits for the next cycle. This blocks the thread; asynchronous code uses
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
    /// Returns a handle that ends this answer from elsewhere.
    #[must_use]
    pub fn cancel_handle(&self) -> CancelHandle {
        self.answer.cancel_handle()
    }

    /// Returns counts and times once the answer has ended.
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
        // The receiver is gone if the answer was dropped.
        let _ = self.0.try_send(Event::Ended(Box::new(outcome)));
    }
}
