//! An answer that grows in a thread of its own.

use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use futures_core::Stream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::answer::{AnswerCycle, AnswerError, AnswerListener, Answered};
use crate::engine::Engine;
use crate::request::AnswerRequest;

/// What the thread tells. The channel has no bound; what it holds is bounded by the length of the
/// answer.
#[derive(Debug)]
enum Event {
    Cycle(AnswerCycle),
    Finished(Box<Answered>),
    Failed(AnswerError),
}

/// Ends an answer from elsewhere. Clones end the same answer.
#[derive(Debug, Clone, Default)]
pub struct CancelHandle {
    cancelled: Arc<AtomicBool>,
}

impl CancelHandle {
    /// Ends the answer after the cycle that is under way; what it said so far stays.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

/// A growing answer: an iterator over the cycles of decoding that waits for the next one. Dropping
/// it ends the answer.
#[derive(Debug)]
pub struct Answer {
    /// `None` when the answer has ended.
    events: Option<UnboundedReceiver<Event>>,
    answered: Option<Answered>,
    cancel: CancelHandle,
}

impl Answer {
    pub(crate) fn start(engine: Engine, request: AnswerRequest) -> Result<Self, AnswerError> {
        let (sender, events) = unbounded_channel();
        let cancel = CancelHandle::default();
        let mut listener = Listener {
            events: sender,
            cancel: cancel.clone(),
        };
        let thread = std::thread::Builder::new().name("vispec-answer".to_owned());
        let started = thread.spawn(move || {
            let event = match engine.answer(&request, &mut listener) {
                Ok(answered) => Event::Finished(Box::new(answered)),
                Err(error) => Event::Failed(error),
            };
            // Whoever dropped the answer does not mind.
            let _ = listener.events.send(event);
        });
        started.map_err(|error| AnswerError::Failed(error.into()))?;
        Ok(Self {
            events: Some(events),
            answered: None,
            cancel,
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
    ///
    /// # Panics
    /// As [`Iterator::next`].
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
        match event {
            Some(Event::Cycle(cycle)) => Some(Ok(cycle)),
            Some(Event::Finished(answered)) => {
                self.events = None;
                self.answered = Some(*answered);
                None
            }
            Some(Event::Failed(error)) => {
                self.events = None;
                Some(Err(error))
            }
            None => {
                let lost = self.events.take().is_some();
                lost.then(|| Err(AnswerError::Failed("the answer's thread panicked".into())))
            }
        }
    }
}

impl Iterator for Answer {
    type Item = Result<AnswerCycle, AnswerError>;

    /// Waits for the next cycle.
    ///
    /// # Panics
    /// Inside of asynchronous code of tokio, which must not wait; see [`Answer::into_stream`].
    fn next(&mut self) -> Option<Self::Item> {
        let event = self.events.as_mut()?.blocking_recv();
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
            Some(events) => events.poll_recv(context).map(|event| answer.take(event)),
        }
    }
}

struct Listener {
    events: UnboundedSender<Event>,
    cancel: CancelHandle,
}

impl AnswerListener for Listener {
    fn is_waiting(&self) -> bool {
        !(self.events.is_closed() || self.cancel.cancelled.load(Ordering::Relaxed))
    }

    fn on_start(&mut self, _prompt_tokens: usize) -> ControlFlow<()> {
        if self.is_waiting() {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(())
    }

    fn on_cycle(&mut self, cycle: AnswerCycle) -> ControlFlow<()> {
        let gone = self.events.send(Event::Cycle(cycle)).is_err();
        if gone || self.cancel.cancelled.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}
