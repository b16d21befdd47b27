//! The threads that kernels share.

/// Multiplications below which waking the pool costs more than it saves.
const POOL_PRODUCTS: usize = 1 << 23;

/// Runs `work`, which calls kernels with about `products` multiplications together, within the
/// thread pool if it is worth it: then no kernel has to wake the pool.
pub fn in_pool<R: Send>(products: usize, work: impl FnOnce() -> R + Send) -> R {
    if products < POOL_PRODUCTS || rayon::current_thread_index().is_some() {
        work()
    } else {
        rayon::scope(|_| work())
    }
}

/// Threads that kernels called from here share.
#[must_use]
pub fn n_threads() -> usize {
    rayon::current_num_threads()
}
