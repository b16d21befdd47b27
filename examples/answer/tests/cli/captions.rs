//! Captions of many images, in one run and in several.

use serde_json::Value;

use crate::program::{Program, image};

fn lines(path: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_second_run_does_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("captions.jsonl");
    let images = ["qwen-tied/q4-img-large", "qwen-tied/img-short"].map(image);
    let run = |images: &[std::path::PathBuf]| {
        let program = Program::captions().path("--out", &out);
        images.iter().fold(program, Program::arg).run()
    };
    run(&images[..1]).assert_success();
    let first = lines(&out);
    assert_eq!(first.len(), 1);
    let expected = Program::generate("qwen-scenes")
        .image(&images[0])
        .prompt("Describe the image briefly.")
        .run();
    assert_eq!(first[0]["caption"], expected.stdout.trim());
    run(&images).assert_success();
    let both = lines(&out);
    assert_eq!(both.len(), 2);
    // The first line was neither repeated nor changed.
    assert_eq!(both[0], first[0]);
    assert_eq!(both[1]["image"], images[1].display().to_string());
}

#[test]
fn captions_do_not_depend_on_the_batch() {
    let dir = tempfile::tempdir().unwrap();
    let names = [
        "qwen-tied/q4-img-large",
        "qwen-tied/img-short",
        "qwen-tied/img-long",
    ];
    let images = names.map(image);
    let captions = |batch: &str| {
        let out = dir.path().join(batch);
        let program = Program::captions()
            .args("--temperature 0.8 --batch")
            .arg(batch);
        let program = program.path("--out", &out);
        images
            .iter()
            .fold(program, Program::arg)
            .run()
            .assert_success();
        let told =
            |line: &Value| ["image", "caption", "new_tokens"].map(|field| line[field].clone());
        lines(&out).iter().map(told).collect::<Vec<_>>()
    };
    let alone = captions("1");
    assert_eq!(alone.len(), 3);
    assert_eq!(captions("2"), alone);
    assert_eq!(captions("8"), alone);
}

#[test]
fn bad_images_stop_the_run_unless_told_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("captions.jsonl");
    let bad = dir.path().join("bad.png");
    std::fs::write(&bad, "no image").unwrap();
    let good = image("qwen-tied/img-short");
    let program = || Program::captions().path("--out", &out).arg(&bad).arg(&good);
    program()
        .run()
        .assert_refused("a bad image", 1, &["bad.png"]);
    assert!(lines(&out).is_empty());
    let outcome = program().arg("--keep-going").run();
    outcome.assert_success();
    assert!(outcome.stderr.contains("1 of 2"), "{outcome:?}");
    let lines = lines(&out);
    assert!(lines[0]["error"].as_str().unwrap().contains("not an image"));
    assert!(lines[1]["caption"].is_string());
    Program::captions()
        .run()
        .assert_refused("no flags", 2, &["--out"]);
}

#[test]
fn a_file_has_answers_to_one_prompt() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("captions.jsonl");
    let image = image("qwen-tied/img-short");
    let ask = |prompt: &str| {
        let program = Program::captions().path("--out", &out);
        program.prompt(prompt).arg(&image).run()
    };
    ask("What is this?").assert_success();
    ask("What is it?").assert_refused("another prompt", 1, &["What is this?", "What is it?"]);
    assert_eq!(lines(&out).len(), 1);
}

#[test]
fn a_run_without_a_caption_fails() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("captions.jsonl");
    let text = dir.path().join("text.png");
    std::fs::write(&text, "no image").unwrap();
    let program = Program::captions().path("--out", &out).arg("--keep-going");
    let run = program.arg(&text).run();
    run.assert_refused("nothing captioned", 1, &["1 of 1 images failed"]);
    assert!(lines(&out)[0]["error"].is_string());
}
