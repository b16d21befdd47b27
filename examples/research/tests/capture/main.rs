//! `capture` from a user's point of view: killed, resumed, shared among processes, on a full disk,
//! and with broken data.

#![cfg(unix)] // signals and limits
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use program::{files, fixtures, refuse, run_args, shell, strs, succeed, text};

mod batches;
mod own_questions;
mod program;
mod videos;

const SIGKILL: i32 = 9;

/// Returns the flags for twelve answers in shards of four.
fn stage_2(storage: &str) -> String {
    format!(
        "--source scenes-long --scenes 40 --limit 12 --stage 2 --max-new-tokens 24 \
         --storage {storage} --shard-positions 4 --min-pixels 3136 --max-pixels 12544"
    )
}

#[test]
fn kills_at_any_moment_lose_nothing_and_repeat_nothing() {
    for storage in ["full", "packed"] {
        survives_kills(&stage_2(storage));
    }
}

fn survives_kills(flags: &str) {
    let alone = tempfile::tempdir().unwrap();
    let started = Instant::now();
    succeed(&run_args("qwen-tied", alone.path(), flags));
    let full_run = started.elapsed();
    let expected = files(alone.path());
    assert_eq!(
        expected
            .keys()
            .filter(|name| name.starts_with("shard"))
            .count(),
        3
    );

    let mut n_killed = 0;
    let mut dir = tempfile::tempdir().unwrap();
    for kill in 0..10u32 {
        let args = run_args("qwen-tied", dir.path(), flags);
        let mut child = shell("", &strs(&args))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Moments spread over a run, including loading.
        let moment = full_run * (kill * 7 % 10 + 1) / 11;
        std::thread::sleep(moment.max(Duration::from_millis(1)));
        let _ = child.kill();
        let status = child.wait().unwrap();
        if status.signal() == Some(SIGKILL) {
            n_killed += 1;
        } else {
            assert!(status.success());
            assert_eq!(files(dir.path()), expected);
            dir = tempfile::tempdir().unwrap();
        }
    }
    assert!(n_killed > 0);
    succeed(&run_args("qwen-tied", dir.path(), flags));
    assert_eq!(files(dir.path()), expected);
}

#[test]
fn a_draft_changes_nothing_but_the_time() {
    let flags = stage_2("packed");
    let plain = tempfile::tempdir().unwrap();
    succeed(&run_args("llava-next", plain.path(), &flags));
    let speculative = tempfile::tempdir().unwrap();
    let mut args = run_args("llava-next", speculative.path(), &flags);
    let draft = fixtures().join("drafts/llava-next-q2");
    args.extend(["--draft".to_owned(), draft.to_str().unwrap().to_owned()]);
    args.extend(["--total-token", "30"].map(str::to_owned));
    let (_, stderr) = succeed(&args);
    assert!(stderr.contains("% of it on file operations"), "{stderr}");
    assert_eq!(files(speculative.path()), files(plain.path()));
}

#[test]
fn a_full_disk_is_said_and_survived() {
    let flags = stage_2("full");
    let alone = tempfile::tempdir().unwrap();
    succeed(&run_args("qwen-tied", alone.path(), &flags));
    let dir = tempfile::tempdir().unwrap();
    let args = run_args("qwen-tied", dir.path(), &flags);
    // A limit in blocks of 512 bytes that a sample stays below and a shard exceeds.
    let largest = files(alone.path()).values().map(Vec::len).max().unwrap();
    let before = format!("trap '' XFSZ; ulimit -f {};", largest * 3 / 4 / 512);
    let output = shell(&before, &strs(&args)).output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("shard-00000000.safetensors"), "{stderr}");
    assert!(stderr.contains("File too large"), "{stderr}");
    assert!(!files_of(dir.path(), "tmp"));
    succeed(&args);
    assert_eq!(files(dir.path()), files(alone.path()));
}

/// Returns whether a folder contains a file with this extension.
fn files_of(dir: &Path, extension: &str) -> bool {
    let mut entries = fs::read_dir(dir).unwrap();
    entries.any(|entry| {
        entry
            .unwrap()
            .path()
            .extension()
            .is_some_and(|e| e == extension)
    })
}

#[test]
fn shares_are_merged_and_checked() {
    for storage in ["compact", "packed"] {
        merges_and_checks(storage);
    }
}

fn merges_and_checks(storage: &str) {
    let stage_1 = format!(
        "--source scenes-short --scenes 30 --end 11 --stage 1 --storage {storage} \
         --shard-positions 2"
    );
    let dirs: Vec<TempDir> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    for (index, dir) in dirs.iter().enumerate() {
        let flags = format!("{stage_1} --shard {}/3", index + 1);
        succeed(&run_args("llava-15", dir.path(), &flags));
    }
    let out = tempfile::tempdir().unwrap();
    let path = |dir: &TempDir| dir.path().to_str().unwrap().to_owned();
    let mut args = vec!["merge".to_owned(), "--out".to_owned(), path(&out)];
    args.extend(dirs[1..].iter().map(path));
    refuse(&args, 1, &["0..4 is in none of them"]);
    args.push(path(&dirs[0]));
    let (stdout, _) = succeed(&args);
    assert!(stdout.contains("samples: 11 in 6 shards"), "{stdout}");
    assert!(stdout.contains("68000 such samples"), "{stdout}");
    for storage in ["full", "compact", "packed", "online"] {
        let line = format!("image tokens, {storage}: ");
        let line = stdout.lines().find(|other| other.contains(&line)).unwrap();
        assert!(line.contains("tokens of text fit into 150 GB"), "{line}");
    }
    let (stdout, _) = succeed(&["check".to_owned(), path(&out)]);
    assert!(stdout.contains("all hashes match"), "{stdout}");

    let shard = out.path().join("shard-00000004.safetensors");
    let mut bytes = fs::read(&shard).unwrap();
    bytes.pop();
    fs::remove_file(&shard).unwrap();
    fs::write(&shard, bytes).unwrap();
    refuse(
        &["check".to_owned(), path(&out)],
        1,
        &["shard-00000004", "cut short"],
    );
    // A different target and a different storage in the same directory.
    let flags = format!("{stage_1} --shard 1/3");
    let other = run_args("qwen-tied", dirs[0].path(), &flags);
    refuse(&other, 1, &["capture.json", "target.fingerprint"]);
    let flags = flags.replace(storage, "full");
    let other = run_args("llava-15", dirs[0].path(), &flags);
    let difference = format!("storage is \"{storage}\", expected \"full\"");
    refuse(&other, 1, &[&difference]);
}

/// Numbers in the environment from a launcher are sufficient; MPI is not needed.
#[test]
fn processes_of_a_launcher_take_a_share_each() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let flags = "--source scenes-short --scenes 30 --end 11 --stage 1 --shard-positions 2";
    let args = run_args("llava-15", &dir.path().join("shares"), flags);
    let as_rank = |rank: usize, args: &[String]| {
        let before = format!("export SLURM_PROCID={rank} SLURM_STEP_NUM_TASKS=2;");
        let output = shell(&before, &strs(args)).output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    as_rank(1, &args);
    as_rank(0, &args);
    let mut merge = vec!["merge".to_owned(), "--out".to_owned(), path("whole")];
    merge.extend(["1", "2"].map(|n| path(&format!("shares/share-000{n}-of-2"))));
    let (stdout, _) = succeed(&merge);
    // Six positions in three shards, and five in three.
    assert!(stdout.contains("samples: 11 in 6 shards"), "{stdout}");

    // An explicit share takes precedence.
    let told = format!("{flags} --shard 2/2");
    as_rank(0, &run_args("llava-15", &dir.path().join("own"), &told));
    let shares = |name: &str| files(Path::new(&path(name)));
    let told = shares("own");
    let second = shares("shares/share-0002-of-2");
    assert_eq!(
        told.keys().collect::<Vec<_>>(),
        second.keys().collect::<Vec<_>>()
    );
}

#[test]
fn the_documented_sizes_are_those_that_are_calculated() {
    let (stdout, _) = succeed(&["sizes".to_owned()]);
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/capture.md");
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains(&stdout), "docs/capture.md lacks\n{stdout}");
}

/// Writes LLaVA-Pretrain rows: one with an intact image, one with a missing and one with a damaged
/// image, and a row without turns.
fn llava_rows() -> (TempDir, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let image = fixtures().join("cases/qwen-tied/img-short/image_0.png");
    let bytes = fs::read(image).unwrap();
    fs::create_dir(dir.path().join("00000")).unwrap();
    fs::write(dir.path().join("00000/a.png"), &bytes).unwrap();
    fs::write(dir.path().join("00000/cut.png"), &bytes[..bytes.len() / 2]).unwrap();
    let row = |id: &str, image: &str| {
        json!({"id": id, "image": format!("00000/{image}"), "conversations": [
            {"from": "human", "value": "<image>\nDescribe the image."},
            {"from": "gpt", "value": "a large red circle"}]})
    };
    let rows: Value = json!([
        row("good", "a.png"),
        row("missing", "b.png"),
        row("damaged", "cut.png"),
        {"id": "empty", "image": "00000/a.png", "conversations": "none"},
        {"id": "silent", "image": "00000/a.png", "conversations": [
            {"from": "human", "value": "Describe the image.\n<image>"}]},
    ]);
    let file = dir.path().join("blip_laion_cc_sbu_558k.json");
    fs::write(&file, rows.to_string()).unwrap();
    let flags = format!(
        "--source llava-pretrain --data {} --images {}",
        file.display(),
        dir.path().display()
    );
    (dir, flags.split(' ').map(str::to_owned).collect())
}

#[test]
fn broken_rows_are_named_and_bounded() {
    let (data, flags) = llava_rows();
    let out = tempfile::tempdir().unwrap();
    let mut args = run_args("qwen-tied", out.path(), "--stage 1 --storage online");
    args.extend(flags);
    refuse(
        &args,
        1,
        &[
            "1 bad rows, 0 are tolerated",
            "blip_laion_cc_sbu_558k.json, row",
        ],
    );
    args.extend(["--max-bad-rows", "3"].map(str::to_owned));
    let (stdout, _) = succeed(&args);
    assert!(stdout.contains("samples: 1 in 1 shards"), "{stdout}");
    assert_eq!(stdout.matches("bad row at").count(), 3, "{stdout}");
    for name in [
        "row 2: no image at",
        "b.png",
        "row 3:",
        "row 4: field \"conversations\"",
    ] {
        assert!(stdout.contains(name), "no {name:?} in {stdout}");
    }
    assert!(stdout.contains("dropped: 1 (no answer)"), "{stdout}");

    let check = ["check".to_owned(), out.path().to_str().unwrap().to_owned()];
    succeed(&check);
    fs::write(data.path().join("00000/a.png"), "another").unwrap();
    refuse(&check, 1, &["a.png: sha256", "replaced after the capture"]);
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    let out = tempfile::tempdir().unwrap();
    let out = out.path().join("never");
    let refused = |flags: &str, names: &[&str]| {
        refuse(&run_args("qwen-tied", &out, flags), 2, names);
        assert!(!out.exists());
    };
    refused("--source chat --stage 1", &["--source chat needs --data"]);
    refused(
        "--source scenes-long --data x.json --stage 1",
        &["reads no --data"],
    );
    refused("--source scenes-long --stage 3", &["--stage"]);
    refused(
        "--source scenes-long --stage 1 --shard 3/2",
        &["expected I/N"],
    );
    refused(
        "--source scenes-long --stage 1 --storage tar",
        &["full, compact, packed or online"],
    );
    refused(
        "--source scenes-long --stage 2 --max-new-tokens 0",
        &["--max-new-tokens is 0"],
    );
    refused(
        "--source scenes-long --stage 2 --min-pixels 9",
        &["given together"],
    );
    refused(
        "--source scenes-long --stage 2 --temperature -1",
        &["temperature"],
    );
    refused(
        "--source scenes-long --scenes 5 --stage 1 --start 3 --end 9",
        &["positions 3..9", "5 rows"],
    );
    let missing = run_args(
        "qwen-tied",
        &out,
        "--source chat --data /none.jsonl --stage 1",
    );
    refuse(&missing, 1, &["/none.jsonl: no such file"]);
    let unknown = run_args(
        "qwen-tied",
        &out,
        "--source chat --data Cargo.toml --stage 1",
    );
    refuse(&unknown, 1, &["Cargo.toml: unknown format"]);
}
