//! `evaluate`: cells from their flags to their records.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use vispec_report::record::{
    CellHeader, CellStatus, PromptRecord, RecordLine, RecordReader, merge,
};

use crate::program::{Program, fixtures};

fn lines(cell: &Path) -> Vec<RecordLine> {
    RecordReader::open(cell)
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

fn records(cell: &Path) -> Vec<PromptRecord> {
    let record = |line| match line {
        RecordLine::Record(record) => *record,
        RecordLine::Failure(failure) => panic!("{failure:?}"),
    };
    lines(cell).into_iter().map(record).collect()
}

/// Returns the part of a record that does not depend on the clock.
fn outcome(record: &PromptRecord) -> (String, Vec<u32>, Vec<u32>) {
    let speculative = &record.speculative;
    assert_eq!(
        record.plain.token_ids, speculative.token_ids,
        "{}",
        record.prompt_id
    );
    (
        record.prompt_id.clone(),
        speculative.token_ids.clone(),
        speculative.accepted_per_cycle.clone(),
    )
}

fn scenes(target: &str, out: &Path) -> Program {
    Program::evaluate(target, out).args("--task scenes_short --max-new-tokens 24")
}

fn vispec(out: &Path) -> Program {
    scenes("qwen-tied", out)
        .draft("qwen-tied-q2")
        .args("--method vispec --total-token 8 --top-k 4 --depth 2")
}

#[test]
fn both_arms_are_recorded_with_every_method() {
    let dir = tempfile::tempdir().unwrap();
    for (method, draft) in [
        ("none", None),
        ("prompt-lookup", None),
        ("vispec", Some("qwen-untied-q2")),
        ("eagle2", Some("qwen-untied-eagle2")),
        ("medusa", Some("qwen-untied-medusa")),
    ] {
        for temperature in ["0", "1"] {
            let cell = dir.path().join(format!("{method}-{temperature}"));
            let program = scenes("qwen-untied", &cell)
                .args("--prompts 2 --method")
                .arg(method)
                .arg("--temperature")
                .arg(temperature);
            let program = draft.into_iter().fold(program, Program::draft);
            program.run().assert_success();
            assert_eq!(CellStatus::of(&cell).unwrap(), CellStatus::Complete);
            let header = CellHeader::read(&cell).unwrap();
            assert_eq!(header.settings.tree.is_some(), draft.is_some(), "{method}");
            assert_eq!(header.num_q, (method == "vispec").then_some(2), "{method}");
            assert_eq!(header.costs.is_some(), method != "none", "{method}");
            for record in records(&cell) {
                outcome(&record);
                assert!(record.image_tokens > 0 && record.prompt_tokens > record.image_tokens);
                let times = record.speculative.times_ms;
                let cycles = times.draft + times.verify + times.other;
                assert!((cycles - times.decode).abs() < 1e-3, "{method}: {times:?}");
                assert!(times.preprocess > 0.0 && times.vision > 0.0 && times.prefill > 0.0);
                let plain = &record.plain;
                assert!(
                    plain
                        .accepted_per_cycle
                        .iter()
                        .all(|&accepted| accepted == 0)
                );
                assert!(plain.nodes_per_cycle.iter().all(|&nodes| nodes == 1));
            }
        }
    }
}

#[test]
fn trees_are_measured_against_the_same_plain_answers() {
    let dir = tempfile::tempdir().unwrap();
    let cells = ["first", "second", "third"].map(|name| dir.path().join(name));
    let [first, second, third] = &cells;
    let program = vispec(first)
        .args("--prompts 3 --temperature 1 --also")
        .arg(format!("3/8/12={}", second.display()))
        .arg("--also")
        .arg(format!("2/2/4={}", third.display()));
    program.run().assert_success();
    // A record of one cell is lost: only that cell answers again.
    let path = second.join("records.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let shorter: String = text.split_inclusive('\n').take(2).collect();
    fs::write(&path, shorter).unwrap();
    let resumed = program.run();
    resumed.assert_success();
    assert!(
        resumed.stderr.contains("\n1 prompts answered"),
        "{resumed:?}"
    );

    let whole = dir.path().join("whole");
    let alone = vispec(&whole).args("--prompts 3 --temperature 1");
    alone.run().assert_success();
    let outcomes = |cell| records(cell).iter().map(outcome).collect::<Vec<_>>();
    assert_eq!(outcomes(first), outcomes(&whole));
    let trees = cells.each_ref().map(|cell| {
        assert_eq!(CellStatus::of(cell).unwrap(), CellStatus::Complete);
        CellHeader::read(cell).unwrap().settings.tree.unwrap()
    });
    assert_eq!(
        trees.map(|tree| tree.to_string()),
        ["2/4/8", "3/8/12", "2/2/4"]
    );
    let all = cells.each_ref().map(|cell| records(cell));
    for ((one, two), three) in all[0].iter().zip(&all[1]).zip(&all[2]) {
        outcome(two);
        assert_eq!(one.plain, three.plain);
        assert_eq!(one.plain.token_ids, two.plain.token_ids);
        let nodes =
            |record: &PromptRecord| record.speculative.nodes_per_cycle.iter().max().copied();
        assert_eq!(
            (nodes(one), nodes(two), nodes(three)),
            (Some(8), Some(12), Some(4))
        );
    }
    assert_eq!(all[0][0].plain, all[1][0].plain);
}

#[test]
fn a_killed_cell_is_continued_without_loss_or_repetition() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, killed) = (dir.path().join("whole"), dir.path().join("killed"));
    vispec(&whole).args("--prompts 10").run().assert_success();
    let program = vispec(&killed).args("--prompts 10");
    for stop_after in [1, 4, 6] {
        let mut command = program.command();
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let shown = stderr.lines().map(Result::unwrap);
        let wanted = format!("{stop_after}/10 ");
        assert!(shown.into_iter().any(|line| line.starts_with(&wanted)));
        child.kill().unwrap();
        child.wait().unwrap();
        // A line cut in the middle of a write.
        let path = killed.join("records.jsonl");
        let mut text = fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"schema_version\":1,\"prom");
        fs::write(&path, text).unwrap();
    }
    let outcome_of_rest = program.run();
    outcome_of_rest.assert_success();
    assert!(
        outcome_of_rest.stderr.contains("cut off 25 bytes"),
        "{outcome_of_rest:?}"
    );
    assert_eq!(CellStatus::of(&killed).unwrap(), CellStatus::Complete);
    let outcomes = |cell| records(cell).iter().map(outcome).collect::<Vec<_>>();
    assert_eq!(outcomes(&killed), outcomes(&whole));
    // No work is left.
    program.run().assert_success();
    assert_eq!(records(&killed).len(), 10);
}

#[test]
fn shards_make_up_the_cell() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    vispec(&whole).args("--prompts 5").run().assert_success();
    let shards = [0, 1].map(|shard| {
        let cell = dir.path().join(shard.to_string());
        let program = vispec(&cell)
            .args("--prompts 5 --shard")
            .arg(format!("{shard}/2"));
        program.run().assert_success();
        cell
    });
    assert_eq!(shards.each_ref().map(|cell| records(cell).len()), [3, 2]);
    let merged = dir.path().join("merged");
    merge(&shards, &merged).unwrap();
    let outcomes = |cell| {
        let mut outcomes: Vec<_> = records(cell).iter().map(outcome).collect();
        outcomes.sort();
        outcomes
    };
    assert_eq!(outcomes(&merged), outcomes(&whole));
}

/// Writes a task of three rows in `data/own`; the image of the second row is damaged.
fn own_task(dir: &Path) -> Program {
    let task = dir.join("own.toml");
    let definition = r#"
        name = "own"
        title = "Pictures of mine"
        source = "nowhere"
        id = "{id}"
        max_new_tokens = 12
        [rows]
        format = "json_lines"
        files = ["rows.jsonl"]
        [prompt]
        turns = "turns"
        user = [{ image_file = "{image}" }, { text = "{turn}" }]
    "#;
    fs::write(&task, definition).unwrap();
    let data = dir.join("data/own");
    fs::create_dir_all(&data).unwrap();
    let rows = r#"{"id": "a", "image": "a.png", "turns": ["What is this?", "Are you sure?"]}
        {"id": "b", "image": "b.png", "turns": ["What is this?", "Why?"]}
        {"id": "c", "image": "a.png", "turns": ["What colour?"]}"#;
    fs::write(data.join("rows.jsonl"), rows).unwrap();
    let image = fixtures().join("cases/qwen-tied/img-short/image_0.png");
    fs::copy(image, data.join("a.png")).unwrap();
    fs::write(data.join("b.png"), b"\x89PNG\r\n\x1a\n").unwrap();
    Program::evaluate("qwen-tied", &dir.join("cell"))
        .path("--task", &task)
        .path("--data", &dir.join("data"))
        .args("--method prompt-lookup")
}

#[test]
fn turns_follow_each_other_and_a_damaged_image_is_named_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let cell = dir.path().join("cell");
    let program = own_task(dir.path());
    let first = program.run();
    first.assert_refused("a damaged image", 1, &["2 of 5 prompts", "b: ", "b.png"]);
    let status = |done, failed| CellStatus::Incomplete {
        done,
        failed,
        planned: 5,
    };
    assert_eq!(CellStatus::of(&cell).unwrap(), status(3, 2));
    let ids: Vec<String> = lines(&cell)
        .iter()
        .map(|line| line.prompt_id().to_owned())
        .collect();
    assert_eq!(ids, ["a", "a#turn2", "b", "b#turn2", "c"]);
    let answered = |id: &str| {
        let record = lines(&cell).into_iter().find_map(|line| match line {
            RecordLine::Record(record) if record.prompt_id == id => Some(*record),
            _ => None,
        });
        record.unwrap()
    };
    let (one, two) = (answered("a"), answered("a#turn2"));
    assert!(two.prompt_tokens as usize > one.prompt_tokens as usize + one.plain.token_ids.len());
    assert_eq!(two.image_tokens, one.image_tokens);

    // After the repair, the two prompts are answered and nothing is repeated.
    let data = dir.path().join("data/own");
    fs::copy(data.join("a.png"), data.join("b.png")).unwrap();
    let second = program.run();
    second.assert_success();
    assert!(second.stderr.contains("2 prompts answered"), "{second:?}");
    assert_eq!(CellStatus::of(&cell).unwrap(), CellStatus::Complete);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cell = dir.path().join("cell");
    let short = |args: &str| scenes("qwen-tied", &cell).args(args);
    let refused = |args: &str, code, names: &[&str]| {
        short(args).run().assert_refused(args, code, names);
        assert!(!cell.exists(), "{args}");
    };
    refused("--method vispec", 2, &["--draft"]);
    refused("--method none --depth 2", 2, &["--depth", "none"]);
    refused("--method none --also 3/8/30=x", 2, &["--also", "none"]);
    refused("--method none --also 3/8=x", 2, &["3/8=x", "DEPTH/TOP_K"]);
    refused("--method none --also 3/8/30", 2, &["--also", "=DIR"]);
    refused("--method none --prompts 0", 2, &["--prompts is 0"]);
    refused(
        "--method none --prompts 101",
        2,
        &["1 to 100", "scenes_short"],
    );
    refused("--method none --temperature -1", 2, &["temperature"]);
    refused("--method none --shard 2/2", 2, &["2/2"]);
    refused("--method none --device abacus", 2, &["abacus"]);
    refused("--method none --task gqq", 2, &["--task"]);
    let unknown = Program::evaluate("qwen-tied", &cell).args("--method none --task gqq");
    unknown
        .run()
        .assert_refused("a task", 2, &["gqq", "did you mean gqa"]);
    let other = short("--method eagle2 --prompts 1")
        .draft("qwen-tied-q2")
        .run();
    other.assert_refused("a draft", 1, &["vispec", "eagle2"]);
    assert!(!cell.exists());
    let absent = Program::evaluate("qwen-tied", &cell).args("--method none --task gqa");
    let names = ["gqa/llava_gqa_testdev_balanced.jsonl", "no such file"];
    absent.run().assert_refused("no data", 1, &names);

    // A directory that contains another cell.
    short("--method none --prompts 1").run().assert_success();
    let other = short("--method none --prompts 1 --seed 1").run();
    other.assert_refused("another cell", 1, &["cell.json", "settings.seed"]);
}

/// The tasks in their published layouts, a few rows each.
fn published(task: &str, out: &Path) -> Program {
    published_for("qwen-tied", task, out)
}

fn published_for(target: &str, task: &str, out: &Path) -> Program {
    let data = fixtures().join("../crates/vispec-data/tests/fixtures/tasks");
    Program::evaluate(target, out)
        .path("--data", &data)
        .arg("--task")
        .arg(task)
        .args("--method vispec --total-token 8 --max-new-tokens 6")
        .draft(&format!("{target}-q2"))
}

#[test]
fn videos_are_measured_as_videos_or_frame_by_frame() {
    let dir = tempfile::tempdir().unwrap();
    // Two frames make one step; a target without video support sees each frame as an image.
    for (target, task, frames) in [
        ("qwen-tied", "msvd_qa", vec![1, 4]),
        ("qwen-tied", "mvbench", vec![1]),
        ("llava-15", "msvd_qa", vec![2, 8]),
    ] {
        let cell = dir.path().join(format!("{target}-{task}"));
        let published = || published_for(target, task, &cell);
        let refused = published().run();
        refused.assert_refused("too few rows", 1, &[task, "takes 100"]);
        let program = published().args("--accept-shortage --prompts 2");
        program.run().assert_success();
        let mut tokens: Vec<u32> = records(&cell)
            .iter()
            .inspect(|record| drop(outcome(record)))
            .map(|record| record.image_tokens)
            .collect();
        tokens.sort_unstable();
        tokens.dedup();
        // All frames of a task have the same size.
        let of_one = tokens[0] / frames[0];
        let expected: Vec<u32> = frames.iter().map(|frames| frames * of_one).collect();
        assert_eq!(tokens, expected, "{task}");
    }
}

/// The frames of the fixture videos are smaller than a token of this target.
#[test]
fn qwen3_vl_is_measured_on_images() {
    let dir = tempfile::tempdir().unwrap();
    let data = fixtures().join("../crates/vispec-data/tests/fixtures/tasks");
    let cell = dir.path().join("gqa");
    let program = Program::evaluate("qwen3-untied", &cell)
        .path("--data", &data)
        .args("--task gqa --method eagle3 --total-token 8 --max-new-tokens 6")
        .args("--accept-shortage --prompts 2")
        .draft("qwen3-untied-eagle3-vllm-mrope-qwen3vl");
    program.run().assert_success();
    let records = records(&cell);
    assert_eq!(records.len(), 2);
    for record in &records {
        drop(outcome(record));
        assert!(record.image_tokens > 0);
    }
}

#[test]
fn every_task_can_be_measured() {
    let dir = tempfile::tempdir().unwrap();
    for task in vispec_data::TaskRegistry::builtin().iter() {
        let cell = dir.path().join(task.name());
        let program = published(task.name(), &cell).args("--accept-shortage --prompts 1");
        program.run().assert_success();
        assert_eq!(CellStatus::of(&cell).unwrap(), CellStatus::Complete);
        let records = records(&cell);
        records.iter().map(outcome).for_each(drop);
        let with_image = records
            .iter()
            .filter(|record| record.image_tokens > 0)
            .count();
        let expected = if task.name() == "mt_bench" {
            0
        } else {
            records.len()
        };
        assert_eq!(with_image, expected, "{}", task.name());
    }
}
