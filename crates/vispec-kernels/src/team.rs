//! Threads that spin for the next parallel loop of a step.

use std::any::Any;
use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};

/// Number of spins after which a waiting thread yields its core.
const TURNS: u32 = 1 << 9;

/// The body of a loop, and the number of its tasks.
#[derive(Clone, Copy)]
struct Loop {
    work: *const (dyn Fn(usize) + Sync),
    tasks: usize,
}

/// State shared by the lead and the helpers.
///
/// The lead writes `current`, then opens the loop by making `epoch` odd. A helper enters by
/// counting itself in `inside`, then checks again that the loop is open. The lead closes the loop
/// by making `epoch` even, then waits until no helper is inside. These four accesses are
/// sequentially consistent: either the helper sees that the loop is closed, or the lead sees the
/// helper. So no thread reads `current` while it changes, or runs a body that no longer exists.
struct Shared {
    current: UnsafeCell<Loop>,
    epoch: AtomicUsize,
    inside: AtomicUsize,
    /// The next task to take.
    next: AtomicUsize,
    /// Number of running steps: 0 or 1. Helpers sleep while it is 0.
    steps: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: only the lead writes `current`, while no helper is inside; see above. The body that it
// points to is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: see above.
unsafe impl Send for Shared {}

/// Helper threads, which serve one lead at a time.
pub(crate) struct Team {
    shared: Arc<Shared>,
    helpers: Vec<Thread>,
}

impl Team {
    /// Creates a team of `threads`, including the lead; fewer if the system cannot start more.
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

    /// Returns the number of threads, including the lead.
    pub(crate) fn threads(&self) -> usize {
        1 + self.helpers.len()
    }

    /// Begins a step. Only one step may run at a time.
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

    /// Runs `work` for each of `0..tasks`. Only the thread that leads the step may call it.
    ///
    /// # Panics
    /// If `work` panics, after all threads have left it.
    pub(crate) fn for_each(&self, tasks: usize, work: &(dyn Fn(usize) + Sync)) {
        let shared = &*self.shared;
        // SAFETY: the same pointer with a longer lifetime; the body outlives the loop, because the
        // loop is closed below before `work` goes out of scope, even on a panic.
        let work: *const (dyn Fn(usize) + Sync + 'static) = unsafe {
            std::mem::transmute::<
                *const (dyn Fn(usize) + Sync + '_),
                *const (dyn Fn(usize) + Sync + 'static),
            >(work)
        };
        // SAFETY: the loop is closed and no helper is inside, so no other thread uses `current`.
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
    /// Runs tasks of the open loop until none is left or one panics.
    fn take(&self) {
        // SAFETY: the caller is the lead or is inside, so `current` does not change.
        let Loop { work, tasks } = unsafe { *self.current.get() };
        // SAFETY: the body lives until the loop is closed and all threads have left it.
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

/// Main loop of a helper: sleeps between steps, and spins between the loops of a step.
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

/// Spins until `done` returns `true`, yielding the core now and then.
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

    /// Returns how often each task of a loop ran.
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
