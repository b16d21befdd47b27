//! Sample selection by seed, identical to numpy and Python.
//!
//! Upstream's evaluation selects its samples with `datasets.Dataset.shuffle(seed)`, which is
//! numpy's `Generator(PCG64(seed)).permutation`, or with Python's `random.sample`. Comparable
//! results need the same samples, so this module implements both generators, tested against the
//! originals.

mod mersenne_twister;
mod pcg64;
mod seed_sequence;

use mersenne_twister::MersenneTwister;
use pcg64::Pcg64;

/// Returns the order of `n` rows after `datasets.Dataset.shuffle(seed)`: the permutation of `0..n`
/// that `numpy.random.default_rng(seed).permutation(n)` returns in numpy 1.17 and later.
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

/// Returns the rows that `random.seed(seed); random.sample(range(n), k)` selects in CPython 3, in
/// its order. If `k` is larger than `n`, where Python raises an exception, all `n` rows are
/// selected.
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

/// Returns the largest population that CPython copies to a list; for larger ones it keeps a set of
/// the selected items. The limit estimates the memory of that set: 21, plus, for more than five
/// items, the smallest power of four that is at least `3 k`.
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
        // The last remaining row takes the place of the selected one.
        pool[choice] = pool[n - idx - 1];
        row
    };
    (0..k).map(pick).collect()
}
