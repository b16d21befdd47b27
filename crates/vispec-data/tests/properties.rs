//! Readers never panic on arbitrary and damaged bytes.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use support::{copied, fixture, task};
use vispec_data::order::{numpy_permutation, python_sample};
use vispec_data::{ReadOptions, Shortage};

/// A task for each reader, and its file.
const READERS: [(&str, &str); 6] = [
    ("gqa", "llava_gqa_testdev_balanced.jsonl"),
    ("textvqa", "TextVQA_0.5.1_val.json"),
    ("mmbench", "mmbench_dev_20230712.tsv"),
    ("mmvet", "data/test-00000-of-00001.parquet"),
    ("hr_bench_4k", "hr_bench_4k.parquet"),
    ("sqa", "problems.json"),
];

/// Reads everything and ignores errors.
fn exercise(name: &str, dir: &Path) {
    let options = ReadOptions {
        max_bad_rows: 3,
        shortage: Shortage::Accept,
        ..ReadOptions::default()
    };
    if let Ok(samples) = task(name).open(dir, &options) {
        for sample in samples {
            let _ = sample.map(|sample| sample.id);
        }
    }
}

fn with_file(name: &str, file: &str, bytes: &[u8]) {
    let dir = copied(name);
    let path: PathBuf = dir.path().join(file);
    fs::write(path, bytes).unwrap();
    exercise(name, dir.path());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn random_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        for (name, file) in READERS {
            with_file(name, file, &bytes);
        }
    }

    #[test]
    fn damaged_files_are_survived(
        reader in 0..READERS.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        keep in any::<prop::sample::Index>(),
        cut in prop::bool::weighted(0.2),
    ) {
        let (name, file) = READERS[reader];
        let mut bytes = fs::read(fixture(name).join(file)).unwrap();
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if cut {
            let keep = keep.index(bytes.len());
            bytes.truncate(keep);
        }
        with_file(name, file, &bytes);
    }

    #[test]
    fn choices_are_rows_and_distinct(seed in any::<u64>(), n in 0usize..3000, k in 0usize..200) {
        let picked = python_sample(seed, n, k);
        prop_assert_eq!(picked.len(), k.min(n));
        let mut sorted = picked.clone();
        sorted.sort_unstable();
        sorted.dedup();
        prop_assert_eq!(sorted.len(), picked.len());
        prop_assert!(picked.iter().all(|&row| row < n));
        let mut shuffled = numpy_permutation(seed, n);
        shuffled.sort_unstable();
        prop_assert!(shuffled.into_iter().eq(0..n));
    }
}
