//! The bounded queue before the model, and the threads that work it off in order.

mod listener;

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use vispec::{AnswerCycle, AnswerEnd, AnswerError, AnswerRequest, Answered};

use self::listener::{Listener, Progress};
use crate::metrics::{Metrics, Outcome};
use crate::model::AnswerModel;
use crate::request_memory::Room;

/// What a request hears of its answers, in this order: `Started`, then for each of them any number
/// of `Cycle`, or one by [`Pace::Whole`], and an end.
///
/// The channel has no bound, so that a client that reads slowly never holds up the model; what it
/// holds is bounded by the length of the answer.
#[derive(Debug)]
pub(crate) enum AnswerEvent {
    /// The prompt is in order and has so many tokens.
    Started(usize),
    /// More text.
    Cycle(AnswerCycle),
    /// The end of an answer.
    Finished(Box<Answered>),
    /// The end of all answers.
    Failed(AnswerError),
    /// The end of all answers, because the server shuts down.
    ShutDown,
}

/// Why a request is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotQueued {
    /// As many wait as may.
    Full {
        /// When a place may be free.
        retry_after: Duration,
    },
    /// The server shuts down.
    Closed,
}

/// How often a request hears of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// With each cycle.
    Cycles,
    /// Once, when the answer has ended: no other thread is woken before.
    Whole,
}

#[derive(Debug)]
struct Job {
    request: AnswerRequest,
    /// The memory that the request holds.
    _room: Room,
    choices: u32,
    pace: Pace,
    events: UnboundedSender<AnswerEvent>,
    submitted: Instant,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Job>,
    running: usize,
    closed: bool,
    /// Answers so far and the time they took, for estimates.
    answered: u32,
    busy: Duration,
}

/// Requests that wait, first come first served.
#[derive(Debug)]
pub(crate) struct JobQueue {
    state: Mutex<State>,
    changed: Condvar,
    /// Set when running answers shall end.
    stopping: AtomicBool,
    max_waiting: usize,
    parallel: usize,
    metrics: Arc<Metrics>,
}

impl JobQueue {
    /// An empty queue for `parallel` workers, in which `max_waiting` requests may wait.
    pub(crate) fn new(parallel: usize, max_waiting: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
            max_waiting,
            parallel,
            metrics,
        })
    }

    /// Starts the workers.
    ///
    /// # Errors
    /// If a thread cannot be started.
    pub(crate) fn start(
        self: &Arc<Self>,
        model: &Arc<dyn AnswerModel>,
    ) -> std::io::Result<Vec<JoinHandle<()>>> {
        let workers = (0..self.parallel).map(|index| {
            let (queue, model) = (Arc::clone(self), Arc::clone(model));
            std::thread::Builder::new()
                .name(format!("answer-{index}"))
                .spawn(move || queue.work(&*model))
        });
        workers.collect()
    }

    /// Puts a request for so many answers in line. Dropping the receiver takes it out again, or ends
    /// its answer.
    ///
    /// # Errors
    /// [`NotQueued`] if there is no place.
    pub(crate) fn submit(
        &self,
        (request, room): (AnswerRequest, Room),
        choices: u32,
        pace: Pace,
    ) -> Result<UnboundedReceiver<AnswerEvent>, NotQueued> {
        let (events, receiver) = unbounded_channel();
        let mut state = self.lock();
        if state.closed {
            return Err(NotQueued::Closed);
        }
        let places = self.max_waiting + (self.parallel - state.running.min(self.parallel));
        if state.waiting.len() >= places {
            self.drop_abandoned(&mut state);
        }
        if state.waiting.len() >= places {
            let retry_after = self.estimate(&state);
            return Err(NotQueued::Full { retry_after });
        }
        state.waiting.push_back(Job {
            request,
            _room: room,
            choices,
            pace,
            events,
            submitted: Instant::now(),
        });
        self.show(&state);
        drop(state);
        self.changed.notify_all();
        Ok(receiver)
    }

    /// Takes no more requests; those that wait are still answered.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Ends running answers at their next cycle and drops those that wait.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        let mut state = self.lock();
        state.closed = true;
        for job in state.waiting.drain(..) {
            self.metrics.count(Outcome::ShutDown);
            // A client that has gone does not mind.
            let _ = job.events.send(AnswerEvent::ShutDown);
        }
        self.show(&state);
        drop(state);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and every state is valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn show(&self, state: &State) {
        self.metrics.queue(state.waiting.len(), state.running);
    }

    fn drop_abandoned(&self, state: &mut State) {
        state.waiting.retain(|job| {
            let gone = job.events.is_closed();
            if gone {
                self.metrics.count(Outcome::Cancelled);
            }
            !gone
        });
    }

    /// When the queue will have moved on by one, going by the mean of the answers so far.
    fn estimate(&self, state: &State) -> Duration {
        let mean = state.busy.checked_div(state.answered).unwrap_or_default();
        let per_place = mean / u32::try_from(self.parallel.max(1)).unwrap_or(1);
        per_place.clamp(Duration::from_secs(1), Duration::from_secs(60))
    }

    fn work(&self, model: &dyn AnswerModel) {
        while let Some(job) = self.next() {
            let started = Instant::now();
            self.run(model, job);
            let mut state = self.lock();
            state.running -= 1;
            state.answered = state.answered.saturating_add(1);
            state.busy += started.elapsed();
            self.show(&state);
        }
    }

    /// The next request whose client still waits; `None` when the queue is closed and empty.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            self.drop_abandoned(&mut state);
            if let Some(job) = state.waiting.pop_front() {
                state.running += 1;
                self.show(&state);
                return Some(job);
            }
            self.show(&state);
            if state.closed {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn run(&self, model: &dyn AnswerModel, mut job: Job) {
        self.metrics.waited(job.submitted.elapsed());
        let mut progress = Progress::Waiting;
        let seed = job.request.seed;
        for choice in 0..job.choices {
            job.request.seed = seed.wrapping_add(choice.into());
            let event = self.answer(model, &job, &mut progress);
            let outcome = Outcome::of(&event);
            let is_last = choice + 1 == job.choices || !outcome.is_answer();
            // Counted first, so that whoever has the answer finds it counted.
            if is_last {
                self.metrics.count(outcome);
            }
            // A client that has gone does not mind.
            let _ = job.events.send(event);
            if is_last {
                return;
            }
        }
    }

    /// One answer to a request, and how it ended.
    fn answer(&self, model: &dyn AnswerModel, job: &Job, progress: &mut Progress) -> AnswerEvent {
        let mut listener = Listener::new(self, job, progress);
        // What a model keeps between requests is not left half done by a panic, and the server must
        // outlive a request that brings one out.
        let answered = catch_unwind(AssertUnwindSafe(|| {
            model.answer(&job.request, &mut listener)
        }));
        let answered = answered.unwrap_or_else(|_| Err(AnswerError::Failed("it panicked".into())));
        match answered {
            Ok(answered) => {
                self.metrics.answered(&answered);
                listener.tell_held();
                let shut_down = answered.end == AnswerEnd::Cancelled && !job.events.is_closed();
                if shut_down {
                    AnswerEvent::ShutDown
                } else {
                    AnswerEvent::Finished(Box::new(answered))
                }
            }
            Err(error) => {
                if let AnswerError::Failed(cause) = &error {
                    tracing::error!(error = %with_causes(&**cause), "the model failed");
                }
                AnswerEvent::Failed(error)
            }
        }
    }
}

/// The message of an error and those of its causes, for the log.
fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    Vec::from_iter(causes.map(ToString::to_string)).join(": ")
}
