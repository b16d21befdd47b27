//! The output of the command-line programs about tasks.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use support::{copied, fixture, samples, task};
use vispec_data::{TaskRegistry, listing};
use vispec_processor::{DecodedImage, ImageOptions};

fn text(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn the_list_has_a_line_per_task() {
    let registry = TaskRegistry::builtin();
    let list = text(|out| listing::write_tasks(&registry, out));
    assert_eq!(list.lines().count(), registry.names().count());
    let gqa = list.lines().find(|line| line.starts_with("gqa ")).unwrap();
    assert!(gqa.contains("100, shuffled with seed 42"), "{gqa}");
    assert!(gqa.contains("https://cs.stanford.edu"), "{gqa}");
}

#[test]
fn a_sample_is_shown_with_its_images() {
    let samples = samples("mmspec");
    let shown = text(|out| listing::write_sample(&samples[1], out));
    for part in [
        "id: mmspec_002\n",
        "mmspec.jsonl, row 2\n",
        "user:\n  [image: ",
        "mmspec_002.jpg]\n  Describe <image 1>.\n",
        "then user:\n  Why?\n",
    ] {
        assert!(shown.contains(part), "{part} not in {shown}");
    }
}

#[test]
fn images_are_written_as_png() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("new/folder");
    let samples = samples("mme");
    let sample = samples
        .iter()
        .find(|sample| sample.id.ends_with("#2"))
        .unwrap();
    let limits = ImageOptions::default();
    let paths = listing::write_images(sample, &out, &limits).unwrap();
    let name = paths[0].file_name().unwrap().to_str().unwrap();
    assert!(
        name.starts_with("code_reasoning_000") && name.ends_with("_png_2-0.png"),
        "{name}"
    );
    let written = DecodedImage::open(&paths[0], &limits).unwrap();
    assert_eq!(written, sample.images[0].decode(&limits).unwrap());
}

#[test]
fn checks_say_what_to_do() {
    let empty = tempfile::tempdir().unwrap();
    let missing = text(|out| listing::write_check(&task("mmvet").check(empty.path()), out));
    assert_eq!(
        missing,
        "mmvet: not ready\n  missing  data/test-*.parquet\n  get it from hub: whyu/mm-vet\n"
    );
    let ready = text(|out| listing::write_check(&task("mmvet").check(&fixture("mmvet")), out));
    assert_eq!(
        ready,
        "mmvet: ready\n  found    data/test-*.parquet\n  5 rows, 5 samples\n"
    );
    let short = text(|out| listing::write_check(&task("gqa").check(&fixture("gqa")), out));
    assert!(
        short.contains("  task gqa has 5 rows, its subset takes 100"),
        "{short}"
    );
    let dir = copied("mmvet");
    std::fs::write(dir.path().join("data/test-00000-of-00001.parquet"), "PAR1").unwrap();
    let broken = text(|out| listing::write_check(&task("mmvet").check(dir.path()), out));
    assert!(broken.contains("not a Parquet file"), "{broken}");
}
