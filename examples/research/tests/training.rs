//! The program `train`, killed at random moments, reaches the same result as an uninterrupted run.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;

use serde_json::Value;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

/// Random numbers that are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
}

/// Captures a tiny target's answers to questions about drawn scenes.
fn capture(storage: &str, out: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_capture"))
        .args(["run", "--source", "scenes-long", "--scenes", "40"])
        .args(["--limit", "12", "--stage", "2", "--max-new-tokens", "24"])
        .args(["--min-pixels", "3136", "--max-pixels", "12544"])
        .args(["--shard-positions", "5", "--storage", storage, "--target"])
        .arg(repository("fixtures/models/qwen-tied"))
        .arg("--out")
        .arg(out)
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
}

/// Starts a run of `epochs` epochs on captures.
fn train(data: &[&Path], out: &Path, epochs: usize) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_train"));
    command
        .arg("--config")
        .arg(repository("examples/configs/train/vispec-stage2.toml"))
        .arg("--target")
        .arg(repository("fixtures/models/qwen-tied"))
        .arg("--out")
        .arg(out)
        .arg("--set")
        .arg(format!("optimizer.epochs={epochs}"));
    for dir in data {
        command.arg("--data").arg(dir);
    }
    for setting in [
        "optimizer.learning_rate=1e-3",
        "data.held_out=0.1",
        "evaluation.drafted_samples=1",
        "checkpoint.every_steps=2",
    ] {
        command.arg("--set").arg(setting);
    }
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Returns steps with their losses, and epochs, without values that depend on the clock.
fn curve(out: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let mut record: Value = serde_json::from_str(line).unwrap();
            record.as_object_mut().unwrap().remove("tokens_per_second");
            record
        })
        .collect()
}

#[test]
fn killed_at_random_moments() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    capture("compact", &data);
    let whole = dir.path().join("whole");
    let started = std::time::Instant::now();
    assert!(train(&[&data], &whole, 4).wait().unwrap().success());
    let length = started.elapsed();

    let killed = dir.path().join("killed");
    let mut random = Random(11);
    let mut kills = 0;
    for _ in 0..10 {
        let mut child = train(&[&data], &killed, 4);
        // Up to half the length of a run, so that some runs make progress and none ends before the
        // kill.
        let share = u32::try_from(random.next() % 500).unwrap();
        sleep(length * share / 1000);
        if child.try_wait().unwrap().is_none() {
            kills += 1;
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(kills > 0);
    assert!(train(&[&data], &killed, 4).wait().unwrap().success());

    assert_eq!(curve(&whole), curve(&killed));
    for file in [
        "last/model.safetensors",
        "last/config.json",
        "best/model.safetensors",
    ] {
        let read = |out: &Path| std::fs::read(out.join(file)).unwrap();
        assert_eq!(read(&whole), read(&killed), "{file}");
    }
}

fn fails_with(arguments: &[&str], expected: &str) {
    let output = Command::new(env!("CARGO_BIN_EXE_train"))
        .args(arguments)
        .output()
        .unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
    assert!(message.contains(expected), "{message}");
}

fn first_loss(out: &Path) -> f64 {
    curve(out)[0]["losses"]["loss"].as_f64().unwrap()
}

#[test]
fn captures_of_all_storages_are_trained_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    for storage in ["full", "compact", "packed", "online"] {
        capture(storage, &path(storage));
        let run = path(&format!("{storage}-run"));
        let mut child = train(&[&path(storage)], &run, 1);
        assert!(child.wait().unwrap().success(), "{storage}");
    }
    let full = first_loss(&path("full-run"));
    // The same samples, recomputed or rounded to 8 bits of mantissa.
    let online = first_loss(&path("online-run"));
    assert!((online / full - 1.0).abs() < 1e-4, "{online} {full}");
    let compact = first_loss(&path("compact-run"));
    assert!((compact / full - 1.0).abs() < 1e-2, "{compact} {full}");
    let packed = first_loss(&path("packed-run"));
    assert!((packed / full - 1.0).abs() < 1e-2, "{packed} {full}");

    let both = path("both-run");
    let mut child = train(&[&path("packed"), &path("online")], &both, 1);
    assert!(child.wait().unwrap().success());
    let steps = |out: &Path| curve(out).iter().filter(|r| r["record"] == "step").count();
    assert_eq!(steps(&path("full-run")), 10);
    assert_eq!(steps(&both), 21);
}

#[test]
fn eagle_2_refuses_captures_without_states_of_image_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let config = repository("examples/configs/train/eagle2.toml");
    let model = repository("fixtures/models/qwen-tied");
    for storage in ["compact", "packed"] {
        let data = dir.path().join(storage);
        capture(storage, &data);
        let out = dir.path().join("out");
        let paths = [&config, &model, &data, &out].map(|path| path.to_str().unwrap());
        let flags = ["--config", "--target", "--data", "--out"];
        let arguments: Vec<&str> = flags
            .into_iter()
            .zip(paths)
            .flat_map(|(f, p)| [f, p])
            .collect();
        fails_with(
            &arguments,
            "hidden states of image tokens were not captured",
        );
    }
}

/// Without MPI, a process does not know the others, which would all write to the same directory.
#[cfg(not(feature = "mpi"))]
#[test]
fn one_of_several_processes_says_how_to_build_for_them() {
    let dir = tempfile::tempdir().unwrap();
    for program in [
        env!("CARGO_BIN_EXE_train"),
        env!("CARGO_BIN_EXE_make_target"),
    ] {
        let out = dir.path().join("out");
        let output = Command::new(program)
            .args(["--config", "none", "--out"])
            .arg(&out)
            .args(if program.ends_with("train") {
                &["--data", "none", "--target", "none"][..]
            } else {
                &[]
            })
            .env("OMPI_COMM_WORLD_RANK", "1")
            .env("OMPI_COMM_WORLD_SIZE", "2")
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains("this is process 1 of 2"), "{message}");
        assert!(message.contains("--features mpi"), "{message}");
        assert!(!out.exists());
    }
}

#[test]
fn bad_input_is_named() {
    let config = repository("examples/configs/train/vispec-stage2.toml");
    let config = config.to_str().unwrap();
    let model = repository("fixtures/models/qwen-tied");
    let model = model.to_str().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().to_str().unwrap();
    let rest = ["--target", model, "--data", empty, "--out", empty];
    let with = |first: &[&'static str]| [&["--config", config][..], first, &rest].concat();
    fails_with(&with(&[]), "no capture here");
    fails_with(&with(&["--set", "seed"]), "expected key=value");
    fails_with(&with(&["--set", "data.max_len=1"]), "data.max_len is 1");

    let data = dir.path().join("data");
    capture("compact", &data);
    let (data_name, out) = (data.to_str().unwrap(), dir.path().join("out"));
    let on_data = |target: &str, expected: &str| {
        let target = repository(target);
        let rest = ["--data", data_name, "--out", out.to_str().unwrap()];
        let target = ["--target", target.to_str().unwrap()];
        let first = ["--config", config, "--set", "optimizer.epochs=1"];
        fails_with(&[&first[..], &target, &rest].concat(), expected);
    };
    on_data("fixtures/models/llava-15", "fingerprint of the target");
    let shard = data.join("shard-00000005.safetensors");
    let bytes = std::fs::read(&shard).unwrap();
    std::fs::write(&shard, &bytes[..bytes.len() - 1]).unwrap();
    on_data("fixtures/models/qwen-tied", "the file was cut short");
    // The correct length, but the wrong content.
    std::fs::write(&shard, vec![b'x'; bytes.len()]).unwrap();
    on_data("fixtures/models/qwen-tied", "shard-00000005.safetensors");
}
