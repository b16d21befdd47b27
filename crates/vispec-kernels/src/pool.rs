//! The threads that kernels share.
//!
//! A decoding step consists of a hundred or more parallel loops of about ten microseconds, with
//! short serial work between them. Putting threads to sleep and waking them between loops would
//! cost as much as the loops. So [`in_pool`] gives a step a *team*: threads that spin while they
//! wait for the next loop of the step, and sleep between steps. Loops outside of a step, and steps
//! that start while the team is taken, run in rayon's pool.

use std::cell::Cell;
use std::sync::{Mutex, OnceLock, TryLockError};

use rayon::prelude::*;

use crate::team::Team;

/// Number of multiplications below which gathering a team costs more than it saves.
const POOL_PRODUCTS: usize = 1 << 23;

/// Number of multiplications below which one thread is faster than several sleeping ones.
const SERIAL_PRODUCTS: usize = 1 << 19;
/// Number of multiplications below which one thread is faster than several spinning ones.
const SERIAL_PRODUCTS_LED: usize = 1 << 16;

/// Number of chunks of a small operation per thread: more than one, so that late threads get less
/// work.
const CHUNKS_PER_THREAD: usize = 2;

thread_local! {
    /// The team of the step that this thread leads.
    static LED: Cell<Option<&'static Team>> = const { Cell::new(None) };
}

/// Returns the one team of the process, and the lock of its lead.
fn team() -> &'static (Team, Mutex<()>) {
    static TEAM: OnceLock<(Team, Mutex<()>)> = OnceLock::new();
    TEAM.get_or_init(|| (Team::new(n_threads()), Mutex::new(())))
}

/// Ends a step when dropped, also on a panic.
struct Dismiss(&'static Team);

impl Drop for Dismiss {
    fn drop(&mut self) {
        LED.set(None);
        self.0.dismiss();
    }
}

/// Runs `work` with a team of threads, if this pays and the team is free. Then no kernel has to
/// wake a thread.
///
/// `products` is the approximate total number of multiplications of all kernels that `work` calls.
pub fn in_pool<R: Send>(products: usize, work: impl FnOnce() -> R + Send) -> R {
    if products < POOL_PRODUCTS || LED.get().is_some() || n_threads() == 1 {
        return work();
    }
    let (team, taken) = team();
    let lead = match taken.try_lock() {
        Ok(taken) => Some(taken),
        // A step that panicked has already dismissed the team.
        Err(TryLockError::Poisoned(taken)) => Some(taken.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
    .filter(|_| team.threads() == n_threads());
    if lead.is_some() {
        team.gather();
        LED.set(Some(team));
        let _dismiss = Dismiss(team);
        work()
    } else if rayon::current_thread_index().is_some() {
        work()
    } else {
        rayon::scope(|_| work())
    }
}

/// Returns whether a loop of `products` multiplications is faster on all threads than on one.
pub(crate) fn pays(products: usize) -> bool {
    let led = LED.get().is_some();
    let serial = if led {
        SERIAL_PRODUCTS_LED
    } else {
        SERIAL_PRODUCTS
    };
    n_threads() > 1 && products >= serial
}

/// Runs `work` for each of `0..tasks`, on all threads.
pub(crate) fn for_each(tasks: usize, work: impl Fn(usize) + Sync + Send) {
    if tasks <= 1 {
        return (0..tasks).for_each(work);
    }
    // A nested loop must not disturb the team, which is busy with this one.
    match LED.take() {
        Some(team) => {
            team.for_each(tasks, &work);
            LED.set(Some(team));
        }
        None => (0..tasks).into_par_iter().with_max_len(1).for_each(work),
    }
}

/// Runs `work` for each row of `out`, on all threads.
///
/// # Shapes
/// `out[rows, len]`; a partial last row is not touched.
pub(crate) fn for_each_row<T: Send>(
    out: &mut [T],
    len: usize,
    work: impl Fn(usize, &mut [T]) + Sync + Send,
) {
    let whole = out.len() / len.max(1) * len;
    for_each_chunk(&mut out[..whole], len, work);
}

/// Runs `work` for each chunk of `len` elements of `out`, on all threads. The last chunk may be
/// shorter.
pub(crate) fn for_each_chunk<T: Send>(
    out: &mut [T],
    len: usize,
    work: impl Fn(usize, &mut [T]) + Sync + Send,
) {
    /// Base pointer of the chunks, shared by threads that take different chunks.
    struct Chunks<T>(*mut T);
    // SAFETY: no two threads get the same chunk, and `T` is `Send`.
    unsafe impl<T: Send> Sync for Chunks<T> {}
    // SAFETY: see above.
    unsafe impl<T: Send> Send for Chunks<T> {}
    impl<T> Chunks<T> {
        fn start(&self, at: usize) -> *mut T {
            self.0.wrapping_add(at)
        }
    }
    if out.is_empty() {
        return;
    }
    let end = out.len();
    let chunks = Chunks(out.as_mut_ptr());
    for_each(end.div_ceil(len), |chunk| {
        let start = chunk * len;
        // SAFETY: the chunk lies within `out`, which stays borrowed, and no other task has this
        // chunk.
        let out =
            unsafe { std::slice::from_raw_parts_mut(chunks.start(start), len.min(end - start)) };
        work(chunk, out);
    });
}

/// Returns the chunk length for splitting a small operation on `len` elements, a multiple of
/// `unit`, or `len` if one thread is faster. `products` is the cost of an element in
/// multiplications.
pub(crate) fn chunk_len(len: usize, unit: usize, products: usize) -> usize {
    if pays(len.saturating_mul(products)) {
        let units = len.div_ceil(unit);
        units.div_ceil(CHUNKS_PER_THREAD * n_threads()) * unit
    } else {
        len
    }
}

/// Memory that tasks write, each at its own places.
#[derive(Clone, Copy)]
pub(crate) struct Out(pub(crate) *mut f32);

// SAFETY: code that writes through the pointer guarantees that no other task has the same places.
unsafe impl Send for Out {}
// SAFETY: see above.
unsafe impl Sync for Out {}

impl Out {
    pub(crate) fn at(self, place: usize) -> *mut f32 {
        self.0.wrapping_add(place)
    }
}

/// Runs `work` for each row of `values`, on all threads, and returns the results in the order of
/// the rows.
///
/// # Shapes
/// `values[rows, len]`; a partial last row is not touched.
pub fn map_rows<T: Send, R: Send>(
    values: &mut [T],
    len: usize,
    work: impl Fn(usize, &mut [T]) -> R + Sync + Send,
) -> Vec<R> {
    let mut rows: Vec<(&mut [T], Option<R>)> = match len {
        0 => Vec::new(),
        _ => values
            .chunks_exact_mut(len)
            .map(|row| (row, None))
            .collect(),
    };
    for_each_row(&mut rows, 1, |index, row| {
        for (values, result) in row {
            *result = Some(work(index, values));
        }
    });
    rows.into_iter().filter_map(|(_, result)| result).collect()
}

/// Returns the number of threads that kernels called from here share.
#[must_use]
pub fn n_threads() -> usize {
    rayon::current_num_threads()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    /// Returns the sum of `0..tasks`, computed by nested loops.
    fn sum(tasks: usize) -> usize {
        let sum = AtomicUsize::new(0);
        for_each(tasks, |task| {
            for_each(task, |_| {
                sum.fetch_add(1, Relaxed);
            });
        });
        sum.into_inner()
    }

    #[test]
    fn steps_at_the_same_time_and_loops_within_loops() {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for tasks in 0..40 {
                        let all = in_pool(usize::MAX, || [sum(tasks), sum(tasks)]);
                        assert_eq!(all, [tasks * tasks.saturating_sub(1) / 2; 2]);
                        assert!(LED.get().is_none());
                    }
                });
            }
        });
    }

    #[test]
    fn a_step_that_panics_gives_the_team_back() {
        for _ in 0..3 {
            let step = || in_pool(usize::MAX, || for_each(4, |task| assert_ne!(task, 2)));
            assert!(std::panic::catch_unwind(step).is_err());
            assert!(LED.get().is_none());
        }
        assert_eq!(in_pool(usize::MAX, || sum(5)), 10);
    }

    #[test]
    fn rows_are_written_once() {
        let mut rows = vec![0; 23];
        for_each_row(&mut rows, 5, |row, out| out.fill(row + 1));
        let expected: Vec<_> = (0..20).map(|at| at / 5 + 1).chain([0; 3]).collect();
        assert_eq!(rows, expected);
        for_each_row(&mut rows, 0, |_, _| unreachable!());
        for_each_chunk(&mut rows, 5, |chunk, out| out.fill(out.len() + chunk));
        let expected: Vec<_> = (0..20).map(|at| at / 5 + 5).chain([7; 3]).collect();
        assert_eq!(rows, expected);
        for_each_chunk(&mut rows[..0], 0, |_, _| unreachable!());
        let sums = map_rows(&mut rows, 5, |row, values| {
            values.fill(row);
            values.iter().sum::<usize>()
        });
        assert_eq!(sums, [0, 5, 10, 15]);
        assert!(map_rows(&mut rows, 0, |_, _| ()).is_empty());
    }
}
