//! A sweep of real cells, killed halfway and restarted, and its report.
#![cfg(unix)] // a process is killed
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod xtask_program;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use vispec_report::record::{
    CellHeader, CellStatus, Method, PromptRecord, RECORDS_FILE, RecordLine, RecordReader,
    RunFailure,
};
use xtask_program::xtask;

const PROMPTS: usize = 8;

/// Three methods of a tiny target; the last draft does not exist.
fn write_sweep(dir: &Path) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
    let fixtures = fixtures.canonicalize().unwrap();
    let fixtures = fixtures.display();
    let text = format!(
        r#"
data = "data"
device = "flex"
prompts = {PROMPTS}
max_new_tokens = 24
tasks = ["scenes_short"]
temperatures = [1.0]
seeds = [7]
dtypes = ["f32"]

[[model]]
target = "{fixtures}/models/qwen-tied"
methods = ["none", "prompt-lookup"]
[[model.draft]]
method = "vispec"
dir = "{fixtures}/drafts/qwen-tied-q{{num_q}}"
num_q = [2, 3, 4]

[[tree]]
depth = [2]
top_k = [4]
total_token = [8]
"#
    );
    let path = dir.join("sweep.toml");
    fs::write(&path, text).unwrap();
    path
}

fn sweep(xtask: &Path, file: &Path, out: &Path) -> Command {
    let mut command = Command::new(xtask);
    command.arg("sweep").arg(file).arg("--out").arg(out);
    command.args(["--evaluate", env!("CARGO_BIN_EXE_evaluate")]);
    // Write nothing to the home directory of the user.
    command.env("XDG_CACHE_HOME", "/nonexistent");
    command
}

fn cells(out: &Path) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = fs::read_dir(out)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|dir| !dir.ends_with("calibration"))
        .collect();
    dirs.sort();
    dirs
}

fn n_lines(cell: &Path) -> usize {
    let text = fs::read(cell.join(RECORDS_FILE)).unwrap_or_default();
    text.iter().filter(|&&byte| byte == b'\n').count()
}

/// Returns the part of the records that does not depend on the clock, one line per prompt.
fn outcomes(cell: &Path) -> Vec<(String, Vec<u32>, Vec<u32>)> {
    // Prompt lookup drafts by measured cost, which differs from run to run.
    let settings = CellHeader::read(cell).unwrap().settings;
    let sized_by_cost = settings.method == Method::PromptLookup;
    let outcome = |record: PromptRecord| {
        assert!(
            record.identical(),
            "{}: {}",
            cell.display(),
            record.prompt_id
        );
        let arm = record.speculative;
        let accepted = match sized_by_cost {
            true => Vec::new(),
            false => arm.accepted_per_cycle,
        };
        (record.prompt_id, arm.token_ids, accepted)
    };
    let lines = RecordReader::open(cell).unwrap().map(Result::unwrap);
    lines
        .map(|line| match line {
            RecordLine::Record(record) => outcome(*record),
            RecordLine::Failure(failure) => panic!("{failure:?}"),
        })
        .collect()
}

#[test]
fn a_killed_sweep_ends_with_the_records_of_one_that_was_not() {
    let xtask = xtask();
    let dir = tempfile::tempdir().unwrap();
    let file = write_sweep(dir.path());
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    // The draft with three queries does not exist: its cell fails, and so does the sweep in the
    // end.
    let output = sweep(&xtask, &file, &whole).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("1 of 5 cells failed"), "{said}");
    assert!(said.contains("/40 prompts, "), "{said}");

    for records_before in [3, PROMPTS + 2, 2 * PROMPTS + 5] {
        let mut running = sweep(&xtask, &file, &killed)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while cells(&killed)
            .iter()
            .map(|cell| n_lines(cell))
            .sum::<usize>()
            < records_before
        {
            assert!(started.elapsed() < Duration::from_secs(120), "no records");
            assert!(running.try_wait().unwrap().is_none(), "it ended by itself");
            thread::sleep(Duration::from_millis(2));
        }
        running.kill().unwrap();
        running.wait().unwrap();
        // The process of the cell may run on for a moment: the next sweep waits for it.
    }
    let last = sweep(&xtask, &file, &killed).output().unwrap();
    assert_eq!(last.status.code(), Some(1), "{last:?}");

    assert_eq!(cells(&whole).len(), 5);
    for (cell, other) in cells(&whole).iter().zip(cells(&killed)) {
        assert_eq!(cell.file_name(), other.file_name());
        if let Ok(failure) = RunFailure::read(cell) {
            let tail = failure.stderr_tail.join("\n");
            assert!(tail.contains("qwen-tied-q3"), "{tail}");
            continue;
        }
        assert_eq!(CellStatus::of(&other).unwrap(), CellStatus::Complete);
        assert_eq!(outcomes(cell), outcomes(&other));
        assert_eq!(outcomes(cell).len(), PROMPTS);
    }

    let report = Command::new(&xtask)
        .arg("report")
        .arg(&killed)
        .output()
        .unwrap();
    assert!(report.status.success(), "{report:?}");
    let said = String::from_utf8(report.stdout).unwrap();
    assert!(
        said.contains("not complete: ") && said.contains("qwen-tied-q3"),
        "{said}"
    );
    let settings = fs::read_to_string(killed.join("report/tables/settings.csv")).unwrap();
    for label in [
        "ViSpec num_q 2",
        "ViSpec num_q 4",
        "Prompt lookup",
        "No draft",
    ] {
        assert!(settings.contains(label), "{settings}");
    }
}
