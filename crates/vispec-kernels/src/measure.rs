//! Limits of the machine: read bandwidth and peak arithmetic throughput.
//!
//! Kernels are judged by their share of these figures, measured in the same run.

use std::hint::black_box;
use std::time::{Duration, Instant};

use rayon::prelude::*;

use crate::isa::Isa;
use crate::linear::{AHEAD_BYTES, CACHE_LINE, Cache, prefetch};

/// Number of passes, of which the best counts.
const PASSES: usize = 12;
/// Size of the buffer, far larger than the caches.
const BUFFER_BYTES: usize = 256 << 20;
/// Size of the part that is timed as a unit.
const WINDOW_BYTES: usize = 32 << 20;

/// Measures the read bandwidth of `threads` threads in bytes per second.
///
/// The result is the best 32 MiB window of several passes over 256 MiB. As in a kernel, the threads
/// of the pool are awake. A window is about as long as a large layer, whose best time is compared
/// with it.
#[must_use]
pub fn read_bandwidth(threads: usize) -> f64 {
    let threads = threads.max(1);
    let buffer: Vec<u64> = (0..BUFFER_BYTES as u64 / 8).collect();
    let isa = Isa::detected();
    let window = WINDOW_BYTES / 8;
    let read = || {
        let windows = buffer.chunks_exact(window).cycle();
        let timed = windows.take(PASSES * (buffer.len() / window)).map(|words| {
            let start = Instant::now();
            let parts = words.par_chunks(window.div_ceil(threads));
            parts.for_each(|part| {
                black_box(fold(isa, part));
            });
            start.elapsed()
        });
        timed.min().unwrap_or_default()
    };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    let best = pool.map_or_else(|_| read(), |pool| pool.install(read));
    WINDOW_BYTES as f64 / best.as_secs_f64()
}

/// Returns the shortest time of several runs.
fn best(mut run: impl FnMut()) -> Duration {
    let timed = |_| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..PASSES).map(timed).min().unwrap_or_default()
}

/// Computes the exclusive or of all words with wide registers.
fn fold(isa: Isa, words: &[u64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a detected instruction set is available.
    unsafe {
        match isa {
            Isa::Avx2 => return fold_avx2(words),
            Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 => return fold_avx512(words),
            Isa::Portable | Isa::Neon => {}
        }
    }
    let _ = isa;
    fold_portable(words)
}

/// Reads four streams at a time with prefetching, as a kernel reads several weight rows: a single
/// stream does not use the whole bandwidth.
#[inline(always)]
fn fold_portable(words: &[u64]) -> u64 {
    let (streams, rest) = words.as_chunks::<16>();
    let (streams, odd) = streams.split_at(streams.len() / 4 * 4);
    let mut lanes = [[0; 16]; 4];
    if !streams.is_empty() {
        let quarter = streams.len() / 4;
        let (first, second) = streams.split_at(2 * quarter);
        let (first, second) = (first.split_at(quarter), second.split_at(quarter));
        for (((a, b), c), d) in first.0.iter().zip(first.1).zip(second.0).zip(second.1) {
            for (lanes, words) in lanes.iter_mut().zip([a, b, c, d]) {
                prefetch(Cache::First, words.as_ptr().wrapping_byte_add(AHEAD_BYTES));
                prefetch(
                    Cache::First,
                    words.as_ptr().wrapping_byte_add(AHEAD_BYTES + CACHE_LINE),
                );
                for (lane, word) in lanes.iter_mut().zip(words) {
                    *lane ^= word;
                }
            }
        }
    }
    let rest = odd.iter().flatten().chain(rest);
    lanes
        .iter()
        .flatten()
        .chain(rest)
        .fold(0, |folded, word| folded ^ word)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn fold_avx2(words: &[u64]) -> u64 {
    fold_portable(words)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn fold_avx512(words: &[u64]) -> u64 {
    fold_portable(words)
}

/// Arithmetic units that [`dot_peak`] measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Fused multiply-add of 32-bit floats.
    F32,
    /// Dot products of bf16 pairs; same as [`Unit::F32`] where the kernels do not use them.
    Bf16,
}

/// Measures the peak arithmetic throughput of `threads` threads in operations per second. A
/// multiplication and an addition count as two operations.
#[must_use]
pub fn dot_peak(unit: Unit, threads: usize) -> f64 {
    const ROUNDS: usize = 1_000_000;
    let threads = threads.max(1);
    let isa = Isa::detected();
    let mut operations = 0;
    let best = best(|| {
        operations = std::thread::scope(|scope| {
            let busy: Vec<_> = (0..threads)
                .map(|_| scope.spawn(move || spin(isa, unit, ROUNDS)))
                .collect();
            busy.into_iter()
                .map(|thread| thread.join().unwrap_or(0))
                .sum()
        });
    });
    operations as f64 / best.as_secs_f64()
}

/// Runs `rounds` of independent products and returns the number of operations.
fn spin(isa: Isa, unit: Unit, rounds: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a detected instruction set is available.
    unsafe {
        match (isa, unit) {
            (Isa::Avx2, _) => return spin_avx2(rounds),
            (Isa::Avx512Bf16, Unit::Bf16) => return spin_bf16(rounds),
            (Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16, _) => return spin_avx512(rounds),
            (Isa::Portable | Isa::Neon, _) => {}
        }
    }
    let _ = (isa, unit);
    spin_portable(rounds)
}

/// Number of independent chains, to hide the latency of a product.
const CHAINS: usize = 12;

fn spin_portable(rounds: usize) -> usize {
    let mut sums = [[1.0_f32; 4]; CHAINS];
    let (factor, term) = (black_box([0.999_f32; 4]), black_box([0.001_f32; 4]));
    for _ in 0..rounds {
        for sum in &mut sums {
            for ((lane, factor), term) in sum.iter_mut().zip(&factor).zip(&term) {
                *lane = *lane * factor + term;
            }
        }
    }
    black_box(sums);
    rounds * CHAINS * 4 * 2
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn spin_avx2(rounds: usize) -> usize {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps};
    let mut sums = [_mm256_set1_ps(1.0); CHAINS];
    let (factor, term) = (
        _mm256_set1_ps(black_box(0.999)),
        _mm256_set1_ps(black_box(0.001)),
    );
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, factor, term);
        }
    }
    black_box(sums);
    rounds * CHAINS * 8 * 2
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn spin_avx512(rounds: usize) -> usize {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_set1_ps};
    let mut sums = [_mm512_set1_ps(1.0); CHAINS];
    let (factor, term) = (
        _mm512_set1_ps(black_box(0.999)),
        _mm512_set1_ps(black_box(0.001)),
    );
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, factor, term);
        }
    }
    black_box(sums);
    rounds * CHAINS * 16 * 2
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
fn spin_bf16(rounds: usize) -> usize {
    use std::arch::x86_64::{_mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_set1_ps};
    let mut sums = [_mm512_set1_ps(1.0); CHAINS];
    let wide = _mm512_set1_ps(black_box(0.001));
    let pairs = _mm512_cvtne2ps_pbh(wide, wide);
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, pairs, pairs);
        }
    }
    black_box(sums);
    rounds * CHAINS * 32 * 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_agree() {
        let words: Vec<u64> = (0..1_000)
            .map(|word: u64| word.wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .collect();
        for isa in Isa::available() {
            assert_eq!(
                fold(isa, &words),
                words.iter().fold(0, |folded, word| folded ^ word)
            );
        }
    }

    #[test]
    fn spins_count_operations() {
        for isa in Isa::available() {
            for unit in [Unit::F32, Unit::Bf16] {
                assert!(spin(isa, unit, 10) >= 10 * CHAINS);
            }
        }
    }
}
