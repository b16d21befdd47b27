//! Threads that spin for the next parallel loop of a step.

use std::any::Any;
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};

/// Turns of waiting after which a thread lets others have its core.
const TURNS: u32 = 1 << 9;

/// A loop's body, and how often it runs.
#[derive(Clone, Copy)]
struct Loop {
    work: *const (dyn Fn(usize) + Sync),
    tasks: usize,
}

/// What the lead and the helpers share.
///
/// The lead writes `current`, then opens it by making `epoch` odd. A helper enters by counting
/// itself in `inside`, and looks again whether the loop is open. The lead closes the loop by
/// making `epoch` even, and then waits until nobody is inside. These four accesses are
/// sequentially consistent: either the helper sees that the loop is closed, or the lead sees the
/// helper. So nobody reads `current` while it changes, or runs a body that is gone.
struct Shared {
    current: UnsafeCell<Loop>,
    epoch: AtomicUsize,
    inside: AtomicUsize,
    /// The next task to take.
    next: AtomicUsize,
    /// Steps that are running: 0 or 1. Helpers sleep while there is none.
    steps: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: `current` is written by the lead only, while nobody is inside; see above. The body that
// it points to is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

/// Helpers of one lead at a time.
pub(crate) struct Team {
    shared: Arc<Shared>,
    helpers: Vec<Thread>,
}

impl Team {
    /// A team of `threads`, the lead included; fewer if the system has no more.
    pub(crate) fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            current: UnsafeCell::new(Loop {
                work: &|_| {},
                tasks: 0,
            }),
            epoch: AtomicUsize::new(0),
            inside: AtomicUsize::new(0),
            next: AtomicUsize::new(0),
            steps: AtomicUsize::new(0),
            panic: Mutex::new(None),
        });
        let helper = |index| {
            let shared = Arc::clone(&shared);
            let name = format!("vispec-kernels-{index}");
            let spawned = thread::Builder::new()
                .name(name)
                .spawn(move || help(&shared));
            spawned.ok().map(|handle| handle.thread().clone())
        };
        let helpers = (1..threads).filter_map(helper).collect();
        Self { shared, helpers }
    }

    /// Threads, the lead included.
    pub(crate) fn threads(&self) -> usize {
        1 + self.helpers.len()
    }

    /// Begins a step. There must be one at a time.
    pub(crate) fn gather(&self) {
        self.shared.steps.store(1, SeqCst);
        for helper in &self.helpers {
            helper.unpark();
        }
    }

    /// Ends a step.
    pub(crate) fn dismiss(&self) {
        self.shared.steps.store(0, SeqCst);
    }

    /// Runs `work` for each of `0..tasks`. To be called by the thread that leads the step.
    ///
    /// # Panics
    /// If `work` does, after all threads have left it.
    pub(crate) fn for_each(&self, tasks: usize, work: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        // SAFETY: the same pointer; the body outlives the loop, since it is closed below before
        // `work` goes out of scope, also if it panics.
        let work: *const (dyn Fn(usize) + Sync + 'static) = unsafe {
            std::mem::transmute::<
                *const (dyn Fn(usize) + Sync + '_),
                *const (dyn Fn(usize) + Sync + 'static),
            >(work)
        };
        // SAFETY: the loop is closed and nobody is inside, so nobody else uses `current`.
        unsafe { *shared.current.get() = Loop { work, tasks } };
        shared.next.store(0, Relaxed);
        shared.epoch.fetch_add(1, SeqCst);
        shared.take();
        shared.epoch.fetch_add(1, SeqCst);
        wait(|| shared.inside.load(SeqCst) == 0);
        let panic = shared
            .panic
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
    }
}

impl Shared {
    /// Runs tasks of the open loop until none is left, or one panics.
    fn take(&self) {
        // SAFETY: the caller is the lead or inside, so `current` does not change.
        let Loop { work, tasks } = unsafe { *self.current.get() };
        // SAFETY: the body lives until the loop is closed and everybody has left it.
        let work = unsafe { &*work };
        let run = || {
            loop {
                let task = self.next.fetch_add(1, Relaxed);
                if task >= tasks {
                    break;
                }
                work(task);
            }
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(run)) {
            self.next.store(tasks, Relaxed);
            *self.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
    }
}

/// What a helper does: sleeps between steps, and spins between the loops of a step.
fn help(shared: &Shared) {
    let mut seen = 0;
    loop {
        while shared.steps.load(Acquire) == 0 {
            thread::park();
        }
        let mut epoch = seen;
        wait(|| {
            epoch = shared.epoch.load(Acquire);
            let open = epoch % 2 == 1 && epoch != seen;
            open || shared.steps.load(Relaxed) == 0
        });
        if epoch % 2 == 0 || epoch == seen {
            continue;
        }
        seen = epoch;
        shared.inside.fetch_add(1, SeqCst);
        if shared.epoch.load(SeqCst) == epoch {
            shared.take();
        }
        shared.inside.fetch_sub(1, Release);
    }
}

/// Spins until `done`, letting others have the core now and then.
fn wait(mut done: impl FnMut() -> bool) {
    let mut turns = 0;
    while !done() {
        turns += 1;
        if turns % TURNS == 0 {
            thread::yield_now();
        } else {
            spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each task of a loop ran.
    fn counts(team: &Team, tasks: usize) -> Vec<usize> {
        let counts: Vec<_> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
        team.for_each(tasks, &|task| {
            counts[task].fetch_add(1, Relaxed);
        });
        counts.into_iter().map(AtomicUsize::into_inner).collect()
    }

    #[test]
    fn each_task_runs_once() {
        for threads in 1..5 {
            let team = Team::new(threads);
            for step in 0..30 {
                team.gather();
                for tasks in [0, 1, 2, 7, 30] {
                    assert_eq!(counts(&team, tasks + step), vec![1; tasks + step]);
                }
                team.dismiss();
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_lead_and_the_team_goes_on() {
        let team = Team::new(3);
        team.gather();
        for bad in 0..9 {
            let loops = || {
                team.for_each(9, &|task| assert_ne!(task, bad, "task {task}"));
            };
            let panic = catch_unwind(AssertUnwindSafe(loops)).expect_err("a task fails");
            let message = panic.downcast_ref::<String>().expect("a message");
            assert!(message.contains(&format!("task {bad}")), "{message}");
            assert_eq!(counts(&team, 20), vec![1; 20]);
        }
        team.dismiss();
    }
}
