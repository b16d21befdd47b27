//! Code shared by the tests of the kernels.
#![allow(dead_code, reason = "each test uses some of it")]

pub(crate) mod attention;

/// Returns random numbers in -1..1 that depend only on `seed`.
pub(crate) fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15); // splitmix64
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    (0..len)
        .map(|_| (next() >> 40) as f32 / (1 << 23) as f32 - 1.0)
        .collect()
}

/// Returns the bit patterns, which also distinguish values that `==` treats as equal.
pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Builds a separate pool.
pub(crate) fn pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .expect("threads")
}

/// Fails unless each output is within `tolerance` times its magnitude of the expected value.
#[track_caller]
pub(crate) fn assert_close(out: &[f32], expected: &[[f64; 2]], tolerance: f64) {
    assert_eq!(out.len(), expected.len());
    for (index, (&out, &[expected, magnitude])) in out.iter().zip(expected).enumerate() {
        let error = (f64::from(out) - expected).abs();
        assert!(
            error <= tolerance * magnitude + 1e-30,
            "element {index} is {out}, not {expected}: off by {error:e}, magnitude {magnitude}"
        );
    }
}
