//! Which samples a seed picks: the random choices of numpy and of Python, number for number.
//!
//! Upstream's evaluation takes its samples with `datasets.Dataset.shuffle(seed)`, which is numpy's
//! `Generator(PCG64(seed)).permutation`, or with Python's `random.sample`. Comparable figures need
//! the same samples, so both generators are here, tested against the originals.

mod mersenne_twister;
mod pcg64;
mod seed_sequence;

use mersenne_twister::MersenneTwister;
use pcg64::Pcg64;

/// The order of `n` rows after `datasets.Dataset.shuffle(seed)`: a permutation of `0..n`, as
/// `numpy.random.default_rng(seed).permutation(n)` of numpy 1.17 and later gives it.
#[must_use]
pub fn numpy_permutation(seed: u64, n: usize) -> Vec<usize> {
    let mut generator = Pcg64::new(seed);
    let mut rows: Vec<usize> = (0..n).collect();
    for last in (1..n).rev() {
        // A `usize` has at most 64 bits on all supported machines.
        let other = generator.at_most(last as u64) as usize;
        rows.swap(last, other);
    }
    rows
}

/// The rows that `random.seed(seed); random.sample(range(n), k)` of CPython 3 picks, in its order.
/// If `k` is larger than `n`, where Python raises an exception, all `n` rows are picked.
#[must_use]
pub fn python_sample(seed: u64, n: usize, k: usize) -> Vec<usize> {
    let mut generator = MersenneTwister::new(seed);
    let k = k.min(n);
    if n <= pool_limit(k) {
        return sample_from_pool(&mut generator, n, k);
    }
    let mut picked = std::collections::HashSet::with_capacity(k);
    let mut rows = Vec::with_capacity(k);
    while rows.len() < k {
        let row = generator.below(n);
        if picked.insert(row) {
            rows.push(row);
        }
    }
    rows
}

/// Largest population of which CPython makes a list; of larger ones it keeps a set of the picked.
/// The number is what it takes the set to weigh: 21, and for more than five picks the power of
/// four that is at least `3 k`.
fn pool_limit(k: usize) -> usize {
    if k <= 5 {
        return 21;
    }
    let mut power = 1usize;
    while power < k.saturating_mul(3) {
        power = power.saturating_mul(4);
    }
    power.saturating_add(21)
}

fn sample_from_pool(generator: &mut MersenneTwister, n: usize, k: usize) -> Vec<usize> {
    let mut pool: Vec<usize> = (0..n).collect();
    let pick = |idx| {
        let choice = generator.below(n - idx);
        let row = pool[choice];
        // The last of those that are left takes the place of the picked one.
        pool[choice] = pool[n - idx - 1];
        row
    };
    (0..k).map(pick).collect()
}
