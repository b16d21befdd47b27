//! The program `train`: killed at random moments, it ends where a whole run ends.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize_to_file};
use serde_json::Value;

const N_SAMPLES: usize = 12;
const TOKENS: usize = 24;
const HIDDEN: usize = 64;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Numbers without a pattern, the same on every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    fn float(&mut self) -> f32 {
        let bits = u16::try_from(self.next() & 0xffff).unwrap();
        f32::from(bits) / 65_536.0 - 0.5
    }
}

fn write_samples(dir: &Path) {
    std::fs::create_dir(dir).unwrap();
    let mut random = Random(5);
    for number in 0..N_SAMPLES {
        let mut floats = || -> Vec<u8> {
            (0..TOKENS * HIDDEN)
                .flat_map(|_| random.float().to_le_bytes())
                .collect()
        };
        let (embeds, states) = (floats(), floats());
        let ids: Vec<u8> = (0..TOKENS as i64)
            .flat_map(|i| (i + 20).to_le_bytes())
            .collect();
        let loss_mask: Vec<u8> = (0..TOKENS).map(|i| u8::from(i >= 10)).collect();
        let image_mask: Vec<u8> = (0..TOKENS).map(|i| u8::from((2..7).contains(&i))).collect();
        let view =
            |dtype, shape: &[usize], data| TensorView::new(dtype, shape.to_vec(), data).unwrap();
        let tensors = [
            ("token_ids", view(Dtype::I64, &[TOKENS], &ids)),
            ("input_embeds", view(Dtype::F32, &[TOKENS, HIDDEN], &embeds)),
            (
                "hidden_states",
                view(Dtype::F32, &[TOKENS, HIDDEN], &states),
            ),
            ("loss_mask", view(Dtype::U8, &[TOKENS], &loss_mask)),
            ("image_mask", view(Dtype::U8, &[TOKENS], &image_mask)),
        ];
        let path = dir.join(format!("{number:04}.safetensors"));
        serialize_to_file(tensors, None, &path).unwrap();
    }
}

fn train(data: &Path, out: &Path) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_train"));
    command
        .arg("--config")
        .arg(repository("examples/configs/train/vispec-stage2.toml"))
        .arg("--target")
        .arg(repository("fixtures/models/qwen-tied"))
        .arg("--data")
        .arg(data)
        .arg("--out")
        .arg(out);
    for setting in [
        "optimizer.epochs=4",
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

/// Steps with their losses, and epochs, without what depends on the clock.
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
    write_samples(&data);
    let whole = dir.path().join("whole");
    let started = std::time::Instant::now();
    assert!(train(&data, &whole).wait().unwrap().success());
    let length = started.elapsed();

    let killed = dir.path().join("killed");
    let mut random = Random(11);
    let mut kills = 0;
    for _ in 0..10 {
        let mut child = train(&data, &killed);
        // Up to half the length of a run, so that some runs get somewhere and none goes unkilled.
        let share = u32::try_from(random.next() % 500).unwrap();
        sleep(length * share / 1000);
        if child.try_wait().unwrap().is_none() {
            kills += 1;
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(kills > 0);
    assert!(train(&data, &killed).wait().unwrap().success());

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
    fails_with(&with(&[]), "no .safetensors files");
    fails_with(&with(&["--set", "seed"]), "expected key=value");
    fails_with(&with(&["--set", "data.max_len=1"]), "data.max_len is 1");

    std::fs::write(dir.path().join("a.safetensors"), "nothing").unwrap();
    fails_with(&with(&["--set", "data.held_out=0.0"]), "a.safetensors");
}
