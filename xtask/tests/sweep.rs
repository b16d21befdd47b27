//! Runs sweeps and reports through the program, with a stand-in for `evaluate`.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test may panic")]

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use vispec_report::record::{CellHeader, CellStatus, RECORDS_FILE, RecordReader, RunFailure};

const FAKE: &str = env!("CARGO_BIN_EXE_fake-evaluate");
const PROMPTS: u64 = 12;

fn write_sweep(dir: &Path, tasks: &str) -> PathBuf {
    let path = dir.join("sweep.toml");
    let text = format!(
        r#"
data = "data"
device = "flex"
prompts = {PROMPTS}
max_new_tokens = 16
tasks = {tasks}
temperatures = [0.0]
seeds = [0]
dtypes = ["f32"]

[[model]]
target = "models/x"
methods = ["none", "prompt-lookup"]
[[model.draft]]
method = "vispec"
dir = "drafts/x"

[[tree]]
depth = [3]
top_k = [8]
total_token = [30, "auto"]
"#
    );
    fs::write(&path, text).unwrap();
    path
}

fn sweep(file: &Path, out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("sweep").arg(file).arg("--out").arg(out);
    command.args(["--evaluate", FAKE]);
    command
}

fn report(dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("report").arg(dir).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn cells(out: &Path) -> Vec<PathBuf> {
    let mut dirs: Vec<_> = fs::read_dir(out)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("cell.json").exists())
        .collect();
    dirs.sort();
    dirs
}

#[test]
fn a_sweep_completes_its_cells_and_does_not_run_them_again() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (
        write_sweep(dir.path(), r#"["a", "b"]"#),
        dir.path().join("out"),
    );
    let output = sweep(&file, &out).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stdout(&output).matches("complete  ").count(), 8);
    let dirs = cells(&out);
    assert_eq!(dirs.len(), 8);
    for cell in &dirs {
        assert_eq!(CellStatus::of(cell).unwrap(), CellStatus::Complete);
        let name = CellHeader::read(cell).unwrap().settings.directory_name();
        assert!(cell.ends_with(name));
    }
    let again = sweep(&file, &out).output().unwrap();
    assert!(again.status.success());
    assert_eq!(stdout(&again).matches("skipped").count(), 8);

    let output = report(&out);
    assert!(output.status.success(), "{output:?}");
    for name in ["report.html", "report.md", "tables/main.csv"] {
        assert!(out.join("report").join(name).exists(), "{name}");
    }
    assert!(!stdout(&output).contains("not complete"));
}

#[test]
fn a_failed_cell_is_recorded_and_the_sweep_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (
        write_sweep(dir.path(), r#"["broken", "fine"]"#),
        dir.path().join("out"),
    );
    let output = sweep(&file, &out).output().unwrap();
    assert!(!output.status.success());
    assert_eq!(stdout(&output).matches("FAILED").count(), 4);
    let failed: Vec<RunFailure> = cells(&out)
        .iter()
        .filter_map(|dir| RunFailure::read(dir).ok())
        .collect();
    assert_eq!(failed.len(), 4);
    for failure in failed {
        assert_eq!(failure.exit_code, Some(3));
        let last = failure.stderr_tail.last().unwrap();
        assert_eq!(last, "error: this task is broken");
    }
    let output = report(&out);
    assert!(output.status.success(), "{output:?}");
    let text = stdout(&output);
    assert_eq!(text.matches("not complete").count(), 4, "{text}");
    assert!(text.contains("1 of 12 prompts; the last run ended with exit code 3"));
    let page = fs::read_to_string(out.join("report/report.html")).unwrap();
    assert!(page.contains("this task is broken"));
}

#[test]
fn a_program_that_is_not_there_fails_every_cell() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (write_sweep(dir.path(), r#"["a"]"#), dir.path().join("out"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.arg("sweep").arg(&file).arg("--out").arg(&out);
    let output = command
        .args(["--evaluate", "/no/such/program"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(stdout(&output).contains("could not be started"));
    let output = report(&out);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("no readable cell"));
}

/// Waits until `done` returns `true`, for at most a minute.
fn wait_for(mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "nothing happened"
        );
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_sweep_that_was_killed_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (write_sweep(dir.path(), r#"["a"]"#), dir.path().join("out"));
    let mut running = sweep(&file, &out)
        .env("FAKE_EVALUATE_MS", "40")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Wait until the second of four cells is running.
    let records = |cell: &PathBuf| {
        fs::read(cell.join(RECORDS_FILE))
            .map_or(0, |text| text.iter().filter(|&&byte| byte == b'\n').count())
    };
    wait_for(|| {
        out.exists() && {
            let counts: Vec<usize> = cells(&out).iter().map(&records).collect();
            counts.len() == 2 && counts.iter().sum::<usize>() > PROMPTS as usize + 2
        }
    });
    running.kill().unwrap();
    running.wait().unwrap();
    // The process of the cell ends when it can no longer write its progress, which releases its
    // lock. Only then is the content of the file final.
    let partial = cells(&out)
        .into_iter()
        .find(|cell| records(cell) < PROMPTS as usize)
        .unwrap();
    let path = partial.join(RECORDS_FILE);
    wait_for(|| File::open(&path).unwrap().try_lock().is_ok());
    let before = fs::read(&path).unwrap();
    let mut file_handle = OpenOptions::new().append(true).open(&path).unwrap();
    file_handle
        .write_all(b"{\"schema_version\":1,\"promp")
        .unwrap();
    drop(file_handle);

    let output = sweep(&file, &out).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(stdout(&output).matches("skipped").count(), 1);
    assert_eq!(cells(&out).len(), 4);
    for cell in cells(&out) {
        assert_eq!(CellStatus::of(&cell).unwrap(), CellStatus::Complete);
        let lines = RecordReader::open(&cell).unwrap().map(Result::unwrap);
        assert_eq!(lines.count() as u64, PROMPTS);
    }
    let after = fs::read(&path).unwrap();
    assert!(after.starts_with(&before), "records of the first run stay");
}

#[test]
fn a_cell_that_another_process_writes_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (write_sweep(dir.path(), r#"["a"]"#), dir.path().join("out"));
    assert!(sweep(&file, &out).output().unwrap().status.success());
    // One cell lacks a record, and its lock is held.
    let cell = cells(&out).remove(0);
    let path = cell.join(RECORDS_FILE);
    let text = fs::read_to_string(&path).unwrap();
    let shorter: String = text.split_inclusive('\n').skip(1).collect();
    fs::write(&path, shorter).unwrap();
    let held = OpenOptions::new().append(true).open(&path).unwrap();
    held.try_lock().unwrap();
    let mut running = sweep(&file, &out)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(running.stderr.take().unwrap());
    let mut lines = stderr.lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("waiting for another process")));
    drop(held);
    assert!(lines.any(|line| line.contains("48/48 prompts")));
    assert!(running.wait().unwrap().success());
    assert_eq!(CellStatus::of(&cell).unwrap(), CellStatus::Complete);
}

#[test]
fn a_mistake_in_the_file_is_named_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (write_sweep(dir.path(), "[]"), dir.path().join("out"));
    let output = sweep(&file, &out).output().unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        text.contains("sweep.toml") && text.contains("tasks: empty"),
        "{text}"
    );
    assert!(!out.exists());
}
