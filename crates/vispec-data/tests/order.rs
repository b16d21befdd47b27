//! Sample selection compared with numpy and Python.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use serde_json::Value;
use vispec_data::order::{numpy_permutation, python_sample};
const LONG_SEED_SAMPLE: [usize; 5] = [628, 765, 834, 960, 967];

fn goldens(kind: &str) -> Vec<Value> {
    let text = include_str!("fixtures/sampling.json");
    let all: Value = serde_json::from_str(text).unwrap();
    all[kind].as_array().unwrap().clone()
}

fn numbers(value: &Value) -> Vec<usize> {
    let items = value.as_array().unwrap().iter();
    items.map(|item| item.as_u64().unwrap() as usize).collect()
}

#[test]
fn shuffles_are_those_of_datasets() {
    for case in goldens("datasets_shuffle") {
        let n = case["n"].as_u64().unwrap() as usize;
        let expected = numbers(&case["first"]);
        let rows = numpy_permutation(case["seed"].as_u64().unwrap(), n);
        assert_eq!(rows[..expected.len()], expected, "n = {n}");
        let mut sorted = rows;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..n).collect::<Vec<_>>());
    }
}

#[test]
fn samples_are_those_of_python() {
    for case in goldens("python_sample") {
        let n = case["n"].as_u64().unwrap() as usize;
        let k = case["k"].as_u64().unwrap() as usize;
        let rows = python_sample(case["seed"].as_u64().unwrap(), n, k);
        assert_eq!(rows, numbers(&case["sample"]), "n = {n}");
    }
}

#[test]
fn small_populations_are_taken_whole() {
    assert!(numpy_permutation(42, 0).is_empty());
    assert_eq!(numpy_permutation(42, 1), [0]);
    assert!(python_sample(42, 0, 10).is_empty());
    let mut all = python_sample(42, 7, 10);
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3, 4, 5, 6]);
}

/// Seeds of more than 32 bits use a second word in both generators. The expected numbers come from
/// Python's `random.seed(2**40 + 7); random.sample(range(1000), 5)`.
#[test]
fn long_seeds_use_both_words() {
    assert_eq!(python_sample((1 << 40) + 7, 1000, 5), LONG_SEED_SAMPLE);
    assert_ne!(
        numpy_permutation((1 << 40) + 7, 50),
        numpy_permutation(7, 50)
    );
}
