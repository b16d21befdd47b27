//! From the model to the client that waits for an answer.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;

use vispec::{AnswerCycle, AnswerListener};

use super::{AnswerEvent, Job, JobQueue, Pace};

/// What the client has heard of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Waiting,
    Started,
    Spoke,
}

/// Hands an answer on to the client that waits for it.
pub(super) struct Listener<'a> {
    queue: &'a JobQueue,
    job: &'a Job,
    /// What a request that hears of its answer once has not heard yet.
    held: AnswerCycle,
    progress: &'a mut Progress,
}

impl<'a> Listener<'a> {
    /// A listener for one answer to `job`.
    pub(super) fn new(queue: &'a JobQueue, job: &'a Job, progress: &'a mut Progress) -> Self {
        Self {
            queue,
            job,
            held: AnswerCycle::default(),
            progress,
        }
    }

    /// Tells what is held back, when the answer has ended.
    pub(super) fn tell_held(self) {
        if self.job.pace == Pace::Whole {
            // A client that has gone does not mind.
            let _ = self.job.events.send(AnswerEvent::Cycle(self.held));
        }
    }

    /// Whether anybody still wants the answer.
    fn wanted(&self) -> ControlFlow<()> {
        let stopping = self.queue.stopping.load(Ordering::Relaxed);
        if stopping || self.job.events.is_closed() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }

    fn send(&self, event: AnswerEvent) -> ControlFlow<()> {
        self.wanted()?;
        match self.job.events.send(event) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

impl AnswerListener for Listener<'_> {
    fn is_waiting(&self) -> bool {
        self.wanted().is_continue()
    }

    fn on_start(&mut self, prompt_tokens: usize) -> ControlFlow<()> {
        if *self.progress != Progress::Waiting {
            return ControlFlow::Continue(());
        }
        *self.progress = Progress::Started;
        self.send(AnswerEvent::Started(prompt_tokens))
    }

    fn on_cycle(&mut self, cycle: AnswerCycle) -> ControlFlow<()> {
        if *self.progress != Progress::Spoke {
            *self.progress = Progress::Spoke;
            self.queue.metrics.first_token(self.job.submitted.elapsed());
        }
        match self.job.pace {
            Pace::Cycles => self.send(AnswerEvent::Cycle(cycle)),
            Pace::Whole => {
                self.held.pieces.extend(cycle.pieces);
                self.held.log_probs.extend(cycle.log_probs);
                self.wanted()
            }
        }
    }
}
