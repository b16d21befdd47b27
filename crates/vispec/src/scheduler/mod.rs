//! Continuous batching: many answers at a time, each identical to what it would be alone.
//!
//! ```text
//! submit ─► Queue (unprepared) ─► preparing threads ─► Queue (ready) ─► Driver: one Batch ─► listeners
//! ```
//!
//! One thread owns all running answers and has the target compute for all of them in one pass after
//! the other. Two other threads prepare prompts; one of them takes only prompts without images, so
//! that decoding an image delays nobody else. Clients that ask at the same time have equal shares
//! of the places and take turns.
//!
//! A request that could need more than the whole memory budget is refused. The memory that an
//! answer may need is reserved when it begins, so no running answer ever runs out of memory or goes
//! back to the queue.

mod chunk;
mod costs;
mod driver;
mod figures;
mod job;
mod options;
mod prepare;
mod queue;
mod turns;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use vispec_core::guarded;

pub use self::figures::SchedulerFigures;
pub use self::options::{KvMemory, SchedulerOptions};
pub(crate) use self::prepare::model_error;
pub(crate) use self::queue::Queue;

use self::driver::Driver;
use self::job::Job;
use self::prepare::Lane;
use crate::answer::AnswerError;
use crate::loaded::Loaded;
use crate::relay::BoxedListener;
use crate::submission::{CancelHandle, Submission, SubmissionHandle, Ticket};

/// The threads that prepare and answer, and their queue. They start with the first submission and
/// end when this is dropped.
pub(crate) struct Scheduler {
    queue: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figures = self.figures();
        f.debug_tuple("Scheduler").field(&figures).finish()
    }
}

impl Scheduler {
    pub(crate) fn new(options: SchedulerOptions) -> Self {
        Self {
            queue: Arc::new(Queue::new(options)),
            threads: Mutex::default(),
        }
    }

    /// Queues a request, with one answer per listener.
    pub(crate) fn submit(
        &self,
        loaded: &Arc<Loaded>,
        submission: Submission,
        listeners: Vec<BoxedListener>,
    ) -> Result<SubmissionHandle, AnswerError> {
        self.start(loaded).map_err(AnswerError::failed)?;
        let ticket = Arc::new(Ticket::new(submission.client));
        let (wanted, queue) = (Arc::clone(&ticket), Arc::downgrade(&self.queue));
        let cancel = CancelHandle::new(move || {
            wanted.cancel();
            if let Some(queue) = queue.upgrade() {
                queue.wake();
            }
        });
        if !listeners.is_empty() {
            self.queue.submit(Job {
                submission,
                listeners: listeners.into(),
                ticket,
            })?;
        }
        Ok(cancel.into())
    }

    pub(crate) fn stop(&self) {
        self.queue.stop();
    }

    pub(crate) fn figures(&self) -> SchedulerFigures {
        self.queue.figures()
    }

    fn start(&self, loaded: &Arc<Loaded>) -> std::io::Result<()> {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if !threads.is_empty() {
            return Ok(());
        }
        let kv_budget = self.queue.options().kv_memory.bytes();
        self.queue.note_budget(kv_budget);
        for (name, lane) in [
            ("vispec-prepare", Lane::All),
            ("vispec-prepare-text", Lane::Texts),
        ] {
            let preparing = self.spawn(name, loaded, move |loaded, queue| {
                prepare::prepare_all(loaded, queue, kv_budget, lane);
            })?;
            threads.push(preparing);
        }
        let answering = self.spawn("vispec-answer", loaded, move |loaded, queue| {
            Driver::new(loaded, queue, kv_budget).run();
        })?;
        threads.push(answering);
        Ok(())
    }

    /// Spawns a thread; when it ends for any reason, everything in the queue ends.
    fn spawn(
        &self,
        name: &'static str,
        loaded: &Arc<Loaded>,
        work: impl FnOnce(&Loaded, &Queue) + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        let (loaded, queue) = (Arc::clone(loaded), Arc::clone(&self.queue));
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(move || {
            // The panic hook has already printed a panic.
            let _ = guarded(name, || work(&loaded, &queue));
            queue.abandon();
        })
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.queue.stop();
        let threads = self.threads.get_mut();
        let threads = threads.unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // A listener may hold the last handle to the engine, so this may be one of the threads.
            if thread.thread().id() != std::thread::current().id() {
                // A thread that panicked has ended as well.
                let _ = thread.join();
            }
        }
    }
}
