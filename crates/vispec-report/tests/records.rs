//! Writing, resuming, reading and merging cells.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use vispec_report::ReportError;
use vispec_report::record::{
    CellHeader, CellSettings, CellStatus, FailureRecord, HEADER_FILE, Method, RECORDS_FILE,
    RecordLine, RecordReader, RecordWriter, SCHEMA_VERSION, Shard, TotalToken, merge,
};
use vispec_report::synthetic;

fn header() -> CellHeader {
    CellHeader::new(synthetic::settings(Method::Vispec, "scenes", 6), "0.1.0")
}

fn write(dir: &Path, header: &CellHeader, indices: impl Iterator<Item = u64>) {
    let mut opened = RecordWriter::open(dir, header).unwrap();
    for index in indices {
        opened
            .writer
            .append(&synthetic::record(&header.settings, index))
            .unwrap();
    }
}

fn read(dir: &Path) -> Vec<RecordLine> {
    RecordReader::open(dir)
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap()
}

fn message(error: &ReportError) -> String {
    error.to_string()
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let header = header();
    write(dir.path(), &header, 0..6);
    assert_eq!(CellHeader::read(dir.path()).unwrap(), header);
    let expected: Vec<_> = (0..6)
        .map(|index| RecordLine::Record(Box::new(synthetic::record(&header.settings, index))))
        .collect();
    assert!(read(dir.path()) == expected);
    assert_eq!(CellStatus::of(dir.path()).unwrap(), CellStatus::Complete);
}

#[test]
fn a_cell_that_was_cut_anywhere_is_continued_to_the_same_file() {
    let whole = tempfile::tempdir().unwrap();
    let header = header();
    write(whole.path(), &header, 0..6);
    let expected = fs::read(whole.path().join(RECORDS_FILE)).unwrap();
    let lines: Vec<usize> = expected
        .iter()
        .enumerate()
        .filter(|(_, byte)| **byte == b'\n')
        .map(|(idx, _)| idx + 1)
        .collect();
    let cuts = (0..expected.len()).step_by(97).chain(lines.clone());
    for cut in cuts {
        let dir = tempfile::tempdir().unwrap();
        header.write(dir.path()).unwrap();
        fs::write(dir.path().join(RECORDS_FILE), &expected[..cut]).unwrap();
        let opened = RecordWriter::open(dir.path(), &header).unwrap();
        let complete = lines.iter().filter(|&&end| end <= cut).count();
        let kept = lines[..complete].last().copied().unwrap_or(0);
        assert_eq!(opened.progress.done().len(), complete, "cut at {cut}");
        assert_eq!(opened.dropped_bytes, (cut - kept) as u64, "cut at {cut}");
        drop(opened);
        write(dir.path(), &header, complete as u64..6);
        assert!(fs::read(dir.path().join(RECORDS_FILE)).unwrap() == expected);
    }
}

#[test]
fn another_cell_is_not_continued_and_the_field_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let written = header();
    write(dir.path(), &written, 0..1);
    let open = |header: &CellHeader| RecordWriter::open(dir.path(), header).map(|_| ());

    let mut other = written.clone();
    other.machine.isa = "other".to_owned();
    let error = message(&open(&other).unwrap_err());
    assert!(error.contains("machine.isa is"), "{error}");
    assert!(error.contains("expected \"other\""), "{error}");

    let mut other = written.clone();
    other.program_version = "9.9.9".to_owned();
    assert!(message(&open(&other).unwrap_err()).contains("program_version"));

    let settings = CellSettings {
        temperature: 1.0,
        ..written.settings.clone()
    };
    let error = message(&open(&CellHeader::new(settings, "0.1.0")).unwrap_err());
    assert!(
        error.contains("settings.temperature is 0.0, expected 1.0"),
        "{error}"
    );

    let mut later = written.clone();
    later.started_at += jiff::SignedDuration::from_secs(60);
    open(&later).unwrap();
}

#[test]
fn two_processes_cannot_write_one_cell() {
    let dir = tempfile::tempdir().unwrap();
    let header = header();
    let first = RecordWriter::open(dir.path(), &header).unwrap();
    let error = RecordWriter::open(dir.path(), &header).unwrap_err();
    assert!(matches!(error, ReportError::Locked { .. }), "{error}");
    drop(first);
    RecordWriter::open(dir.path(), &header).unwrap();
}

#[test]
fn other_versions_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let header = header();
    write(dir.path(), &header, 0..2);
    let path = dir.path().join(RECORDS_FILE);
    let text = fs::read_to_string(&path).unwrap();
    let newer = text.replacen(
        &format!("\"schema_version\":{SCHEMA_VERSION},"),
        "\"schema_version\":7,\"new_field\":1,",
        1,
    );
    fs::write(&path, newer).unwrap();
    let error = RecordReader::open(dir.path())
        .unwrap()
        .next()
        .unwrap()
        .unwrap_err();
    let expected = format!("schema version 7, expected {SCHEMA_VERSION}");
    assert!(message(&error).contains(&expected), "{error}");

    let path = dir.path().join(HEADER_FILE);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        text.replace("\"schema_version\": 1", "\"schema_version\": 2"),
    )
    .unwrap();
    let error = CellHeader::read(dir.path()).unwrap_err();
    assert!(message(&error).contains("schema version 2"), "{error}");
}

#[test]
fn a_spoilt_line_is_named() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &header(), 0..1);
    let path = dir.path().join(RECORDS_FILE);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"prompt_id\": 3\n").unwrap();
    let error = RecordReader::open(dir.path())
        .unwrap()
        .nth(1)
        .unwrap()
        .unwrap_err();
    assert!(
        message(&error).contains("records.jsonl:2: not a record"),
        "{error}"
    );
    assert!(RecordWriter::open(dir.path(), &header()).is_err());
}

#[test]
fn prompts_that_occur_twice_are_named() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &header(), [0, 1, 2, 1].into_iter());
    let error = CellStatus::of(dir.path()).unwrap_err();
    assert!(message(&error).contains("scenes-000001"), "{error}");
}

#[test]
fn failures_are_counted_until_a_record_takes_their_place() {
    let dir = tempfile::tempdir().unwrap();
    let header = header();
    write(dir.path(), &header, 0..5);
    let mut opened = RecordWriter::open(dir.path(), &header).unwrap();
    opened
        .writer
        .append_failure(FailureRecord {
            prompt_id: "scenes-000005".to_owned(),
            message: "image: no such file".to_owned(),
        })
        .unwrap();
    drop(opened);
    let expected = CellStatus::Incomplete {
        done: 5,
        failed: 1,
        planned: 6,
    };
    assert_eq!(CellStatus::of(dir.path()).unwrap(), expected);
    write(dir.path(), &header, 5..6);
    assert_eq!(CellStatus::of(dir.path()).unwrap(), CellStatus::Complete);
}

#[test]
fn records_that_contradict_themselves_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let header = header();
    let mut opened = RecordWriter::open(dir.path(), &header).unwrap();
    let good = synthetic::record(&header.settings, 0);

    let mut record = good.clone();
    record.speculative.accepted_per_cycle[0] = 99;
    let error = opened.writer.append(&record).unwrap_err();
    assert!(
        message(&error).contains("accepted_per_cycle is 99"),
        "{error}"
    );

    let mut record = good.clone();
    record.plain.times_ms.verify = f64::NAN;
    assert!(message(&opened.writer.append(&record).unwrap_err()).contains("times_ms"));

    let mut record = good.clone();
    record.speculative.nodes_per_cycle.pop();
    assert!(message(&opened.writer.append(&record).unwrap_err()).contains("nodes_per_cycle"));

    let mut record = good;
    record.speculative.token_ids.pop();
    assert!(message(&opened.writer.append(&record).unwrap_err()).contains("first_divergence"));
}

fn shard_dirs(root: &Path, header: &CellHeader, count: u32) -> Vec<PathBuf> {
    (0..count)
        .map(|index| {
            let shard = Shard { index, count };
            let mut header = header.clone();
            header.shard = shard;
            header.planned_prompts = shard.share_of(header.settings.prompts);
            let dir = root.join(format!("shard-{index}"));
            write(&dir, &header, (0..6).filter(|&idx| shard.holds(idx)));
            dir
        })
        .collect()
}

#[test]
fn shards_make_a_whole_cell() {
    let root = tempfile::tempdir().unwrap();
    let header = header();
    let mut shards = shard_dirs(root.path(), &header, 4);
    let into = root.path().join("whole");
    let merged = merge(&shards, &into).unwrap();
    assert_eq!(merged.planned_prompts, 6);
    assert_eq!(merged.shard, Shard::WHOLE);
    assert_eq!(read(&into).len(), 6);
    assert_eq!(CellStatus::of(&into).unwrap(), CellStatus::Complete);

    let error = merge(&shards, &into).unwrap_err();
    assert!(message(&error).contains("already holds a cell"), "{error}");
    let other = root.path().join("other");
    let removed = shards.pop().unwrap();
    let error = merge(&shards, &other).unwrap_err();
    assert!(
        message(&error).contains("found the indices [0, 1, 2]"),
        "{error}"
    );

    fs::copy(shards[0].join(RECORDS_FILE), removed.join(RECORDS_FILE)).unwrap();
    shards.push(removed);
    let error = merge(&shards, &other).unwrap_err();
    assert!(
        matches!(error, ReportError::DuplicatePrompts { .. }),
        "{error}"
    );
}

#[test]
fn names_are_read_back() {
    for method in Method::ALL {
        assert_eq!(method.as_str().parse::<Method>().unwrap(), method);
        let json = serde_json::to_string(&method).unwrap();
        assert_eq!(json, format!("\"{method}\""));
    }
    for text in ["auto", "1", "30"] {
        assert_eq!(text.parse::<TotalToken>().unwrap().to_string(), text);
    }
    for text in ["", "0", "-1", "Auto", "3.5"] {
        assert!(text.parse::<TotalToken>().is_err(), "{text}");
    }
    for text in ["1/1", "0/0", "1", "-1/2", "a/b"] {
        assert!(text.parse::<Shard>().is_err(), "{text}");
    }
    assert_eq!(
        serde_json::from_str::<TotalToken>("30").unwrap(),
        TotalToken::Nodes(30)
    );
    assert_eq!(
        serde_json::from_str::<TotalToken>("\"auto\"").unwrap(),
        TotalToken::Auto
    );
    assert!(serde_json::from_str::<TotalToken>("0").is_err());
}

#[test]
fn ids_of_cells_stay_what_they_are() {
    let settings = synthetic::settings(Method::Vispec, "scenes", 6);
    assert_eq!(settings.cell_id(), "227123ca98ee2ab3");
    assert_eq!(
        settings.directory_name(),
        format!("qwen-untied_vispec_3-8-30_t0_scenes_{}", settings.cell_id())
    );
}

proptest! {
    #[test]
    fn shards_split_the_prompts(prompts in 0_u64..50, count in 1_u32..8) {
        let shards = (0..count).map(|index| Shard { index, count });
        for shard in shards.clone() {
            let held = (0..prompts).filter(|&idx| shard.holds(idx)).count() as u64;
            prop_assert_eq!(held, shard.share_of(prompts));
        }
        prop_assert_eq!(shards.map(|shard| shard.share_of(prompts)).sum::<u64>(), prompts);
    }
}
