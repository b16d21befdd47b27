//! The inputs of the fuzz targets in `fuzz`: their seeds, which must be useful, and damaged copies.
//! Inputs found by fuzzing are in `fuzz/findings`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;

#[path = "../../../fuzz/inputs/chat_template.rs"]
mod chat_template;
#[path = "../../../fuzz/inputs/checkpoint.rs"]
mod checkpoint;
#[path = "../../../fuzz/inputs/configs.rs"]
mod configs;
#[path = "../../../fuzz/inputs/dataset_rows.rs"]
mod dataset_rows;
#[path = "../../../fuzz/inputs/image.rs"]
mod image;
#[path = "../../../fuzz/inputs/manifests.rs"]
mod manifests;
#[path = "../../../fuzz/inputs/messages.rs"]
mod messages;
#[path = "../../../fuzz/inputs/records.rs"]
mod records;
#[path = "../../../fuzz/inputs/server_body.rs"]
mod server_body;

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures");

type Check = fn(&[u8]) -> bool;

/// Number of damaged versions per seed.
const DAMAGED: usize = 24;

fn inputs(kind: &str, target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz")
        .join(kind)
        .join(target);
    let Ok(files) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let files = files.map(|file| file.unwrap().path());
    let files = files.map(|path| (path.display().to_string(), fs::read(&path).unwrap()));
    files.collect()
}

/// Cuts even versions short and changes a byte of the others, at places all over the seed.
fn damaged(seed: &[u8], version: usize) -> Vec<u8> {
    let place = seed.len() * version / DAMAGED;
    let mut damaged = seed.to_vec();
    if version.is_multiple_of(2) {
        damaged.truncate(place);
    } else {
        damaged[place] ^= 1 << (version / 2 % 8);
    }
    damaged
}

fn replay(target: &str, check: Check) {
    let seeds = inputs("seeds", target);
    assert!(!seeds.is_empty(), "{target} has no seeds");
    for (path, seed) in seeds {
        assert!(check(&seed), "{path} does not reach far");
        for version in 0..DAMAGED {
            check(&damaged(&seed, version));
        }
    }
    for (_, found) in inputs("findings", target) {
        check(&found);
    }
}

macro_rules! replayed {
    ($($target:ident),*) => {
        $(#[test]
        fn $target() {
            replay(stringify!($target), $target::check);
        })*
    };
}

mod seeds {
    use super::*;

    replayed!(
        chat_template,
        checkpoint,
        configs,
        dataset_rows,
        image,
        manifests,
        messages,
        records,
        server_body
    );
}
