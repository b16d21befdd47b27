//! The miniature reproduction from start to end, at its smallest scale.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod xtask_program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use vispec_processor::{DecodedImage, ImageOptions};
use xtask_program::xtask;

/// Returns the experiment of the repository with half of its tasks and trees, which take most of
/// the time.
fn smaller_experiment() -> String {
    let carried = repository().join("examples/configs/reproduce/experiment.toml");
    let carried = fs::read_to_string(carried).unwrap();
    let left_out = ["few_brief.toml", "few_detailed.toml", "{ depth = 7"];
    let kept = carried
        .lines()
        .filter(|line| !left_out.iter().any(|part| line.contains(part)));
    kept.flat_map(|line| [line, "\n"]).collect()
}

/// Returns `cargo xtask reproduce --scale smoke` with the programs of this build.
fn reproduce(out: &Path, experiment: &Path) -> Output {
    let mut command = reproduction("smoke", out);
    command.arg("--experiment").arg(experiment);
    command.output().unwrap()
}

fn reproduction(scale: &str, out: &Path) -> Command {
    let programs = Path::new(env!("CARGO_BIN_EXE_train")).parent().unwrap();
    let mut command = Command::new(xtask());
    command.args(["reproduce", "--scale", scale, "--out"]);
    command.arg(out).arg("--programs").arg(programs);
    command
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns the modification time of each file below a directory.
fn times(dir: &Path) -> Vec<(PathBuf, SystemTime)> {
    let mut times = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let time = path.metadata().unwrap().modified().unwrap();
                times.push((path, time));
            }
        }
    }
    times.sort();
    times
}

#[test]
fn the_comparison_runs_from_end_to_end_and_not_again() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let experiment = dir.path().join("experiment.toml");
    let smaller = smaller_experiment();
    fs::write(&experiment, &smaller).unwrap();
    let first = reproduce(&out, &experiment);
    assert!(first.status.success(), "{}", text(&first.stderr));
    assert!(!text(&first.stdout).contains("already done ("));

    let page = fs::read_to_string(out.join("report/smoke.md")).unwrap();
    let drafts = [
        "medusa",
        "eagle2",
        "eagle2-captions",
        "vispec-q2",
        "vispec-q5",
        "vispec-q2-pictures",
        "vispec-q2-two-passes",
        "vispec-q2-regressed",
        "eagle2-unrolled",
    ];
    let acceptance = fs::read_to_string(out.join("report/smoke-tables/acceptance.csv")).unwrap();
    for draft in drafts {
        // Two tasks at two temperatures; every answer equals plain decoding.
        let rows = acceptance
            .lines()
            .filter(|line| line.contains(&format!(",{draft},")) && line.ends_with(",100 %"));
        assert_eq!(rows.count(), 4, "{draft} in\n{acceptance}");
        assert!(page.contains(draft));
    }
    for image in [
        "tau-3-8-30-t0.svg",
        "tau-3-8-30-t1.png",
        "speed-up-3-8-30-t0.png",
    ] {
        assert!(
            out.join("report/smoke-plots").join(image).exists(),
            "{image}"
        );
    }

    // A second call finds everything done and modifies no result.
    let made = [
        "target", "scenes", "captures", "runs", "drafts", "cells", "steps",
    ];
    let before = made.map(|dir| times(&out.join(dir)));
    let second = reproduce(&out, &experiment);
    assert!(second.status.success(), "{}", text(&second.stderr));
    let said = text(&second.stdout);
    assert_eq!(said.matches("already done (").count(), 26, "{said}");
    assert!(!said.contains("done in"));
    let lock = out.join("steps/lock");
    let without_lock = |times: Vec<(PathBuf, SystemTime)>| -> Vec<_> {
        times
            .into_iter()
            .filter(|(path, _)| *path != lock)
            .collect()
    };
    for (before, dir) in before.into_iter().zip(made) {
        let now = without_lock(times(&out.join(dir)));
        assert_eq!(without_lock(before), now, "{dir}");
    }

    // A changed setting of one draft: only that draft is trained and measured again.
    let changed = smaller.replacen("draft.num_queries=5", "draft.num_queries=3", 1);
    fs::write(&experiment, changed).unwrap();
    let third = reproduce(&out, &experiment);
    assert!(third.status.success(), "{}", text(&third.stderr));
    let said = text(&third.stdout);
    for step in [
        "train-vispec-q5.0: done in",
        "evaluate-vispec-q5.0: done in",
    ] {
        assert!(said.contains(step), "{step} not in\n{said}");
    }
    assert_eq!(said.matches("done in").count(), 2, "{said}");
}

#[test]
fn mistakes_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let experiment = dir.path().join("experiment.toml");
    let carried = repository().join("examples/configs/reproduce/experiment.toml");
    let carried = fs::read_to_string(carried).unwrap();
    for (from, to, message) in [
        ("[scale.smoke]", "[scale.other]", "scale.smoke: missing"),
        ("prompts = 2\n", "prompts = 0\n", "scale.smoke.prompts: 0"),
        ("name = \"eagle2\"", "name = \"medusa\"", "draft.name"),
        ("against = \"medusa\"", "against = \"x\"", "no draft \"x\""),
        ("texts = 4", "text = 4", "unknown field"),
        ("text.jsonl", "none.jsonl", "none.jsonl"),
    ] {
        fs::write(&experiment, carried.replacen(from, to, 1)).unwrap();
        let output = reproduce(&dir.path().join("out"), &experiment);
        assert_eq!(output.status.code(), Some(1));
        let error = text(&output.stderr);
        assert!(error.contains(message), "{message} not in {error}");
    }
}

fn draw(out: &Path, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_draw_scenes"));
    command.arg("--out").arg(out).args(flags).output().unwrap()
}

#[test]
fn scenes_go_through_sides_and_questions() {
    let dir = tempfile::tempdir().unwrap();
    let flags = "--count 5 --cells 2 --min-shapes 1 --max-shapes 2 --palette carried --side 28 \
                 --side 56 --question A --question B";
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let (first, again) = (dir.path().join("first"), dir.path().join("again"));
    for out in [&first, &again] {
        let output = draw(out, &flags);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let chats = fs::read_to_string(first.join("chats.jsonl")).unwrap();
    let asked = chats.lines().map(|line| {
        let chat: serde_json::Value = serde_json::from_str(line).unwrap();
        let name = chat["images"][0].as_str().unwrap().to_owned();
        let image = DecodedImage::open(first.join(&name), &ImageOptions::default()).unwrap();
        let bytes = |dir: &Path| fs::read(dir.join(&name)).unwrap();
        assert_eq!(bytes(&first), bytes(&again));
        let question = chat["messages"][0]["content"][1]["text"]
            .as_str()
            .unwrap()
            .to_owned();
        (image.size().width, question)
    });
    let asked: Vec<(_, String)> = asked.collect();
    let expected = [(28, "A"), (56, "A"), (28, "B"), (56, "B"), (28, "A")];
    assert!(
        asked
            .iter()
            .map(|(side, q)| (*side, q.as_str()))
            .eq(expected),
        "{asked:?}"
    );

    for (flags, named) in [
        (&["--side", "5"][..], "--side 5"),
        (&["--count", "0"], "--count is 0"),
        (&["--palette", "x"], "standard or carried"),
    ] {
        let output = draw(dir.path(), flags);
        assert_eq!(output.status.code(), Some(2), "{flags:?}");
        assert!(
            text(&output.stderr).contains(named),
            "{}",
            text(&output.stderr)
        );
    }
}

#[test]
fn the_comparison_on_pictures_runs_from_end_to_end() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let first = reproduction("pictures-smoke", &out).output().unwrap();
    assert!(first.status.success(), "{}", text(&first.stderr));

    let page = fs::read_to_string(out.join("report/pictures-smoke.md")).unwrap();
    for part in ["eagle2", "vispec-q2", "medusa"] {
        assert!(page.contains(&format!("| {part} |")), "{page}");
    }
    for tokens in ["9 image tokens", "25 image tokens"] {
        assert!(page.contains(tokens), "{page}");
    }
    assert!(
        page.contains("What the target sees") && page.contains("`pale` (Apache-2.0)"),
        "{page}"
    );
    assert!(out.join("report/pictures-smoke-pictures/00.png").is_file());
    // The target's answers about pictures are stored next to it.
    let named = fs::read_to_string(out.join("target/named-9.jsonl")).unwrap();
    assert_eq!(named.lines().count(), 8);
    let picture = ImageOptions::default();
    let drawn = fs::read_dir(out.join("pictures_smoke_25")).unwrap();
    let pictures = drawn.map(|entry| entry.unwrap().path());
    let pictures: Vec<PathBuf> = pictures
        .filter(|path| path.extension().is_some_and(|kind| kind == "png"))
        .collect();
    assert_eq!(pictures.len(), 2);
    let size = DecodedImage::open(&pictures[0], &picture).unwrap().size();
    assert_eq!((size.height, size.width), (70, 70));

    let again = reproduction("pictures-smoke", &out).output().unwrap();
    assert!(again.status.success(), "{}", text(&again.stderr));
    let all = text(&again.stdout);
    let steps = all
        .lines()
        .filter(|line| line.contains("/") && line.contains(": "));
    assert!(steps.clone().count() > 10, "{all}");
    assert!(
        steps
            .into_iter()
            .all(|line| line.contains("already done (") || line.ends_with(".md")),
        "{all}"
    );

    let needed = reproduction("pictures", &dir.path().join("other"))
        .output()
        .unwrap();
    assert!(!needed.status.success());
    assert!(
        text(&needed.stderr).contains("--language-model"),
        "{}",
        text(&needed.stderr)
    );
}
