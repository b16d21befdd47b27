//! `tasks`: available tasks, their prompts, and missing files.

use std::fs;
use std::path::PathBuf;

use vispec_processor::{DecodedImage, ImageOptions};

use crate::program::{Program, fixtures, model};

fn published() -> PathBuf {
    fixtures().join("../crates/vispec-data/tests/fixtures/tasks")
}

#[test]
fn every_task_is_listed() {
    let outcome = Program::tasks().args("list").run();
    outcome.assert_success();
    let registry = vispec_data::TaskRegistry::builtin();
    assert_eq!(outcome.stdout.lines().count(), registry.names().count());
    for name in registry.names() {
        assert!(
            outcome.stdout.lines().any(|line| line.starts_with(name)),
            "{name}"
        );
    }
}

#[test]
fn a_sample_is_shown_with_its_image_and_as_a_target_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    let show = |args: &str| {
        let program = Program::tasks().args("show").args(args);
        program
            .path("--out", dir.path())
            .path("--target", &model("qwen-tied"))
    };
    let drawn = show("scenes_long --index 3").run();
    drawn.assert_success();
    let wrote = drawn
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("wrote "));
    let written = DecodedImage::open(wrote.unwrap(), &ImageOptions::default()).unwrap();
    assert_eq!((written.size().width, written.size().height), (224, 224));
    for text in [
        "A chat between",
        "reference:",
        "64 of them for 1 images",
        "<|im_start|>user",
    ] {
        assert!(drawn.stdout.contains(text), "{text}: {}", drawn.stdout);
    }

    let data = published();
    let files = show("msvd_qa --accept-shortage")
        .path("--data", &data)
        .run();
    files.assert_success();
    let frames = files
        .stdout
        .lines()
        .filter(|line| line.starts_with("wrote "));
    assert!([2, 8].contains(&frames.count()), "{}", files.stdout);
    let short = show("gqa").path("--data", &data).run();
    short.assert_refused("too few rows", 1, &["gqa", "5 rows", "takes 100"]);
    show("gqq")
        .run()
        .assert_refused("a name", 2, &["gqq", "did you mean gqa"]);
    let beyond = show("scenes_long --index 100").run();
    beyond.assert_refused("an index", 1, &["100 samples", "index 100"]);
}

#[test]
fn what_is_missing_is_said_with_where_to_get_it() {
    let dir = tempfile::tempdir().unwrap();
    let check = |names: &str| {
        let program = Program::tasks().args("check").args(names);
        program.path("--data", dir.path()).run()
    };
    let all = check("");
    all.assert_success();
    assert!(all.stdout.contains("scenes_long: ready"), "{}", all.stdout);
    assert!(all.stdout.contains("hub: whyu/mm-vet"), "{}", all.stdout);
    let named = check("mmvet mme");
    assert_eq!(named.code, Some(1), "{named:?}");
    assert!(named.stderr.contains("not ready: mmvet, mme"), "{named:?}");

    // Half of a download.
    fs::create_dir_all(dir.path().join("mme")).unwrap();
    let rows = published().join("mme/llava_mme.jsonl");
    fs::copy(rows, dir.path().join("mme/llava_mme.jsonl")).unwrap();
    let half = check("mme");
    assert_eq!(half.code, Some(1), "{half:?}");
    assert!(half.stdout.contains("found    llava_mme.jsonl"), "{half:?}");
    assert!(half.stdout.contains("takes 100"), "{half:?}");
}
