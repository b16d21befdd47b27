//! Running `capture` as a user does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

/// Returns `capture` in a shell that first executes `before`.
pub(crate) fn shell(before: &str, args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("{before} exec \"$0\" \"$@\""))
        .arg(env!("CARGO_BIN_EXE_capture"))
        .args(args)
        .env("HF_ENDPOINT", "http://127.0.0.1:9")
        .env("HF_HOME", "/nonexistent")
        .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
        .env("RAYON_NUM_THREADS", "2");
    command
}

pub(crate) fn capture(args: &[&str]) -> Output {
    shell("", args).output().unwrap()
}

/// Returns the arguments of a run with a tiny model.
pub(crate) fn run_args(model: &str, out: &Path, more: &str) -> Vec<String> {
    let target = fixtures().join("models").join(model);
    let mut args = vec!["run".to_owned(), "--target".to_owned()];
    args.push(target.to_str().unwrap().to_owned());
    args.push("--out".to_owned());
    args.push(out.to_str().unwrap().to_owned());
    args.extend(more.split_whitespace().map(str::to_owned));
    args
}

pub(crate) fn strs(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

#[track_caller]
pub(crate) fn succeed(args: &[String]) -> (String, String) {
    let output = capture(&strs(args));
    let texts = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{args:?}: {}", texts.1);
    texts
}

/// Runs a command that must fail with this code and one message that contains all `names`.
#[track_caller]
pub(crate) fn refuse(args: &[String], code: i32, names: &[&str]) {
    let output = capture(&strs(args));
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    for name in names {
        assert!(stderr.contains(name), "no {name:?} in {stderr}");
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Returns the files of a capture with their bytes.
pub(crate) fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = fs::read_dir(dir).unwrap().map(|entry| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read(path).unwrap())
    });
    files.collect()
}
