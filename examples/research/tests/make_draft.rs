//! `cargo xtask make-draft` from start to end, for a tiny vision-language model.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod xtask_program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use xtask_program::xtask;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

fn command(xtask: &Path, out: &Path, more: &[&str]) -> Command {
    let programs = Path::new(env!("CARGO_BIN_EXE_train")).parent().unwrap();
    let mut command = Command::new(xtask);
    command.args(["make-draft", "--questions", "30", "--max-new-tokens", "12"]);
    for setting in [
        "vocabulary.size=300",
        "optimizer.epochs=1",
        "evaluation.drafted_samples=1",
        "compute.head=f32",
        "data.held_out=0.1",
    ] {
        command.args(["--set", setting]);
    }
    command
        .arg("--target")
        .arg(fixtures().join("models/qwen-scenes"));
    command.arg("--images").arg(fixtures().join("images"));
    command
        .arg("--programs")
        .arg(programs)
        .arg("--out")
        .arg(out);
    command.args(more);
    command
}

fn text(output: &Output) -> String {
    let [stdout, stderr] =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{stdout}{stderr}")
}

#[test]
fn a_draft_is_made_and_a_cut_off_run_goes_on() {
    let xtask = xtask();
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    let output = command(&xtask, &whole, &[]).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(
        text(&output).contains("trees of the config accept"),
        "{}",
        text(&output)
    );
    let draft = |out: &Path| fs::read(out.join("draft/model.safetensors")).unwrap();
    let list = fs::read_to_string(whole.join("draft/draft_vocab.json")).unwrap();
    assert!(list.contains("tokens"), "{list}");

    // Finished work is not repeated.
    let again = command(&xtask, &whole, &[]).output().unwrap();
    assert!(again.status.success(), "{}", text(&again));
    assert_eq!(
        text(&again).matches("already done (").count(),
        6,
        "{}",
        text(&again)
    );

    // Results of other flags are set aside, not lost.
    let other = command(&xtask, &whole, &["--seed", "1"]).output().unwrap();
    assert!(other.status.success(), "{}", text(&other));
    for name in [
        "answers",
        "sampled-answers",
        "more-sampled-answers",
        "training",
        "second-training",
        "third-training",
    ] {
        let aside = whole.join(format!("old/{name}-1"));
        assert!(aside.is_dir() && whole.join(name).is_dir(), "{name}");
    }
    let back = command(&xtask, &whole, &[]).output().unwrap();
    assert!(back.status.success(), "{}", text(&back));

    let parts = dir.path().join("parts");
    let mut cut_off = command(&xtask, &parts, &[]).spawn().unwrap();
    thread::sleep(Duration::from_millis(1500));
    // The programs that it started die with their pipes or finish.
    cut_off.kill().unwrap();
    cut_off.wait().unwrap();
    let mut gone_on = command(&xtask, &parts, &[]).output().unwrap();
    for _ in 0..50 {
        if gone_on.status.success() {
            break;
        }
        // A program of the first run still holds its files.
        thread::sleep(Duration::from_millis(500));
        gone_on = command(&xtask, &parts, &[]).output().unwrap();
    }
    assert!(gone_on.status.success(), "{}", text(&gone_on));
    assert!(draft(&whole) == draft(&parts));
}

#[test]
fn what_cannot_work_is_said() {
    let xtask = xtask();
    let dir = tempfile::tempdir().unwrap();
    let failure = |out: &str, more: &[&str]| {
        let output = command(&xtask, &dir.path().join(out), more)
            .output()
            .unwrap();
        assert!(!output.status.success());
        text(&output)
    };
    let found = failure("a", &["--set", "draft.states=[1, 2, 99]"]);
    assert!(
        found.contains("draft.states") && found.contains("from 1 to 16"),
        "{found}"
    );
    let found = failure("b", &["--config", "missing.toml"]);
    assert!(found.contains("missing.toml"), "{found}");
    let found = failure("c", &["--set", "nonsense"]);
    assert!(found.contains("nonsense"), "{found}");
}
