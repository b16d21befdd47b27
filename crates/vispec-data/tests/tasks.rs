//! Every built-in task, on a few rows in its publisher's layout.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::HashSet;
use std::path::Path;

use support::{fixture, lenient, parts, samples, task};
use vispec_data::order::{numpy_permutation, python_sample};
use vispec_data::{DataError, PixelLimits, ReadOptions, TaskDefinition, TaskRegistry};
use vispec_processor::ImageOptions;

const SYSTEM: &str = "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the human's questions.";
const EXPLAIN: &str = "Please answer with an explanation.";

/// Checks the system message of the sample with this id and returns the parts of its user message.
fn user_parts(name: &str, id: &str) -> Vec<String> {
    let samples = samples(name);
    let sample = samples.iter().find(|sample| sample.id == id).unwrap();
    let [system, user] = sample.messages.as_slice() else {
        panic!("{name}: not a system and a user message");
    };
    assert_eq!(
        (system.role.as_str(), user.role.as_str()),
        ("system", "user")
    );
    if name != "mt_bench" {
        assert_eq!(parts(system), [SYSTEM]);
    }
    parts(user).into_iter().map(str::to_owned).collect()
}

fn ids(name: &str) -> Vec<String> {
    samples(name).into_iter().map(|sample| sample.id).collect()
}

#[test]
fn every_task_reads_its_fixture() {
    for task in TaskRegistry::builtin().iter() {
        let mut found = task.open(&fixture(task.name()), &lenient()).unwrap();
        let n_samples = found.n_samples();
        assert!(n_samples > 0, "{}", task.name());
        let ids: Vec<String> = found.ids().map(str::to_owned).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), n_samples);
        for (index, id) in ids.iter().enumerate() {
            let sample = found.next().unwrap().unwrap();
            assert_eq!(&sample.id, id);
            assert_eq!(sample.images.len(), sample.messages.n_images());
            for image in &sample.images {
                image.decode(&ImageOptions::default()).unwrap();
                assert_eq!(image.origin(), &sample.origin);
            }
            assert_eq!(found.sample(index).unwrap().messages, sample.messages);
        }
        assert!(found.next().is_none());
        assert!(found.bad_rows().is_empty());
    }
}

#[test]
fn prompts_are_upstreams() {
    for (name, id, question) in [
        ("gqa", "201", "Is thing 1 red?"),
        (
            "mme",
            "code_reasoning/0001.png#2",
            "Is it C++ code 1? Please answer yes or no.",
        ),
        ("seed_bench", "i2", "What is shown in 2?"),
        ("vqav2", "262144001", "What is 1?"),
        ("vizwiz", "VizWiz_test_00000002", "Can you read label 2?"),
        ("mmvet", "v1_3", "What is x in equation 3?"),
        ("hr_bench_4k", "2", "Where is 2?"),
        ("hr_bench_8k", "1", "Where is 1?"),
        ("mmbench", "241", "Which is 0?"),
        ("mmbench", "242", "Read this.\nWhich is 1?"),
        ("mmbench", "243", "A \"quoted\"\thint\nWhich is 2?"),
    ] {
        assert_eq!(
            user_parts(name, id),
            [question, EXPLAIN, "<image>"],
            "{name}"
        );
    }
    assert_eq!(
        user_parts("textvqa", "34603"),
        [
            "what does sign 1 say?",
            "Perform an OCR task on the provided image. Please extract the text accurately and provide a detailed explanation of the process. Ensure the response is comprehensive and well-structured.",
            "<image>"
        ]
    );
    assert_eq!(
        user_parts("synthdog", "image_0.jpg"),
        [
            "Perform an OCR task on the provided image. Please extract the text accurately and ensure the response is comprehensive and well-structured.",
            "<image>"
        ]
    );
    assert_eq!(
        user_parts("coco_caption", "3"),
        [
            "Please provide a detailed description of the given image.",
            "<image>"
        ]
    );
    assert_eq!(
        user_parts("msvd_qa", "0"),
        ["<video>", "who is 0?", EXPLAIN]
    );
    assert_eq!(
        user_parts("msvd_qa", "1"),
        ["<video>", "who is 1?", EXPLAIN]
    );
    assert_eq!(
        user_parts("mvbench", "action_count/a.mp4#2"),
        ["<video>", "And again?", EXPLAIN]
    );
    assert_eq!(
        user_parts("mmspec", "mmspec_002"),
        ["<image>", "Describe <image 1>."]
    );
    assert_eq!(user_parts("mt_bench", "82"), ["Write text 1."]);
}

/// The text of upstream's `QCM-ALE`: double spaces are collapsed once, and "Answer:" is replaced
/// everywhere.
#[test]
fn science_questions_are_upstreams() {
    let answer = "Your answer should begin with \"The answer is\". Please answer with an explanation. Answer:";
    assert_eq!(
        user_parts("sqa", "1"),
        [
            &format!(
                "Question: Which of these is 1?\nContext: N/A\nOptions: (A) one (B) two (C) three\n{answer}"
            ),
            "<image>"
        ]
    );
    assert_eq!(
        user_parts("sqa", "4"),
        [
            &format!(
                "Question: Complete. {answer} what?\nContext: Look at 4.\nOptions: (A) one (B) two\n{answer}"
            ),
            "<image>"
        ]
    );
}

#[test]
fn samples_are_chosen_as_upstream_chooses_them() {
    let shuffled = |ids: &[&str]| -> Vec<String> {
        let rows = numpy_permutation(42, ids.len()).into_iter();
        rows.map(|row| ids[row].to_owned()).collect()
    };
    // Five rows: numpy's order is 4, 2, 3, 1, 0.
    assert_eq!(ids("gqa"), ["204", "202", "203", "201", "200"]);
    // Filters are applied before the shuffle.
    assert_eq!(ids("seed_bench"), shuffled(&["i0", "i2", "i3"]));
    assert_eq!(ids("coco_caption"), shuffled(&["0", "1", "2", "3"]));
    let mme = ["0000.png", "0000.png#2", "0001.png", "0001.png#2"]
        .map(|id| format!("code_reasoning/{id}"));
    assert_eq!(ids("mme"), shuffled(&mme.each_ref().map(String::as_str)));
    // The split's order, without the question that has no image.
    let split = ["5", "1", "4", "3"];
    let picked = python_sample(42, 4, 100).into_iter().map(|row| split[row]);
    assert_eq!(ids("sqa"), picked.collect::<Vec<_>>());
    // No shuffle.
    assert_eq!(ids("mmvet"), ["v1_0", "v1_1", "v1_2", "v1_3", "v1_4"]);
    assert_eq!(ids("synthdog"), ["image_0.jpg", "image_1.jpg"]);
}

/// Upstream's dictionary keeps the last row of each image.
#[test]
fn of_captions_the_last_row_is_kept() {
    let samples = samples("coco_caption");
    let sample = samples.iter().find(|sample| sample.id == "2").unwrap();
    assert!(sample.origin.file.ends_with("test/0001.parquet"));
    assert_eq!(sample.origin.row, 5);
}

/// Upstream's baseline keeps only the last JSON file.
#[test]
fn all_files_of_mvbench_are_read() {
    let ids = ids("mvbench");
    assert_eq!(ids.len(), 18);
    for part in ["action_sequence/a.mp4", "counterfactual_inference/a.mp4"] {
        assert!(ids.iter().any(|id| id == part), "{part}");
    }
}

#[test]
fn further_turns_follow() {
    let samples = samples("mmspec");
    assert!(samples[0].following_turns.is_empty());
    assert_eq!(samples[1].following_turns, ["Why?", "Who?"]);
}

#[test]
fn frames_are_spread_over_the_video() {
    let samples = samples("msvd_qa");
    let sample = samples.iter().find(|sample| sample.id == "0").unwrap();
    let frames = sample.videos[0].frames();
    let names: Vec<String> = frames
        .map(|frame| frame.to_string().rsplit('/').next().unwrap().to_owned())
        .collect();
    let video = sample.videos[0].decode(&ImageOptions::default()).unwrap();
    // Eight of ten frames, extracted at two per second.
    assert_eq!(video.frames().len(), 8);
    assert!((video.rate() - 1.6).abs() < 1e-9);
    let still = sample.clone().with_frames_as_images();
    assert_eq!(still.images.len(), 8);
    assert_eq!(still.messages.n_images(), 8);
    assert_eq!(still.messages.n_videos() + still.videos.len(), 0);
    let asked = &still.messages.as_slice()[1];
    assert_eq!(parts(asked)[8..], ["who is 0?", EXPLAIN]);
    assert_eq!(
        names,
        [
            "0001", "0002", "0004", "0005", "0006", "0007", "0009", "0010"
        ]
        .map(|name| format!("{name}.png"))
    );
}

/// Each image of a Parquet file has its own colour, so mixed-up rows are detected.
#[test]
fn parquet_images_belong_to_their_rows() {
    let mut colours = HashSet::new();
    for sample in samples("mmvet") {
        let image = sample.images[0].decode(&ImageOptions::default()).unwrap();
        assert!(colours.insert(image.rgb()[..3].to_vec()));
    }
    // Read again in a different order, across row groups.
    let mut again = task("mmvet").open(&fixture("mmvet"), &lenient()).unwrap();
    let first = samples("mmvet");
    for index in [4, 0, 3, 1, 2] {
        let image = |sample: &vispec_data::Sample| {
            sample.images[0].decode(&ImageOptions::default()).unwrap()
        };
        let sample = again.sample(index).unwrap();
        assert_eq!(image(&sample), image(&first[index]));
        assert_eq!(sample.messages, first[index].messages);
    }
}

#[test]
fn limits_are_those_of_upstream() {
    let limits = |name| task(name).pixel_limits();
    let limited = PixelLimits {
        min: Some(256 * 28 * 28),
        max: Some(1280 * 28 * 28),
    };
    for name in [
        "sqa",
        "mmvet",
        "textvqa",
        "mme",
        "vizwiz",
        "gqa",
        "seed_bench",
        "vqav2",
        "mmbench",
    ] {
        assert_eq!(limits(name), limited, "{name}");
    }
    for name in ["coco_caption", "hr_bench_4k", "hr_bench_8k", "synthdog"] {
        assert_eq!(limits(name), PixelLimits::default(), "{name}");
    }
    let frame = PixelLimits {
        min: None,
        max: Some(360 * 420),
    };
    assert_eq!(limits("mvbench"), frame);
    assert_eq!(task("gqa").max_new_tokens(), 512);
}

#[test]
fn a_task_of_the_user_joins_the_others() {
    let text = r#"
        name = "mine"
        title = "Mine"
        source = "my disk"
        id = "{question_id}"
        [rows]
        format = "json_lines"
        files = ["llava_gqa_testdev_balanced.jsonl"]
        [prompt]
        user = [{ image_file = "images/{image}" }, { text = "{{{category}}} {text}" }]
    "#;
    let mut registry = TaskRegistry::builtin();
    registry
        .add(TaskDefinition::from_toml("mine.toml", text).unwrap())
        .unwrap();
    let mut samples = registry
        .get("mine")
        .unwrap()
        .open(&fixture("gqa"), &ReadOptions::default())
        .unwrap();
    let sample = samples.next().unwrap().unwrap();
    assert_eq!(
        parts(&sample.messages.as_slice()[0]),
        [
            "<image>",
            "{default} Is thing 0 red?\nAnswer the question using a single word or phrase."
        ]
    );
    let twice = registry.add(TaskDefinition::from_toml("mine.toml", text).unwrap());
    assert!(matches!(twice, Err(DataError::TaskExists { name }) if name == "mine"));
}

#[test]
fn definitions_are_checked() {
    let gqa = std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tasks/definitions/gqa.toml"),
    )
    .unwrap();
    let error = |from: &str, to: &str| {
        assert!(gqa.contains(from), "{from}");
        let result = TaskDefinition::from_toml("x.toml", &gqa.replacen(from, to, 1));
        result.unwrap_err().to_string()
    };
    for (from, to, part) in [
        ("title =", "titel =", "unknown field `titel`"),
        (
            "name = \"gqa\"",
            "name = \"G Q A\"",
            "name is \"G Q A\", expected lower-case",
        ),
        ("json_lines", "jsonl", "unknown variant `jsonl`"),
        ("{question_id}", "{question_id", "unmatched brace"),
        (
            "min = 200704",
            "min = 9999999",
            "expected at most pixels.max",
        ),
        (
            "\"llava_gqa",
            "\"../llava_gqa",
            "expected a path below the data directory",
        ),
        (
            "columns = [\"text\"]",
            "columns = []",
            "fields.question.columns",
        ),
        (
            "title = \"GQA",
            "max_new_tokens = 0\ntitle = \"GQA",
            "max_new_tokens is \"0\"",
        ),
    ] {
        let message = error(from, to);
        assert!(message.contains(part), "{part} not in {message}");
        assert!(message.contains("x.toml"), "{message}");
    }
}

#[test]
fn reports_say_what_is_missing() {
    let task = task("sqa");
    let dir = tempfile::tempdir().unwrap();
    let report = task.check(dir.path());
    assert!(!report.is_ready());
    assert_eq!(report.files.len(), 2);
    assert!(report.files.iter().all(|file| file.found.is_empty()));
    assert!(report.n_rows.is_none());
    assert!(report.source.contains("scienceqa.github.io"));

    let report = task.check(&fixture("sqa"));
    assert!(!report.is_ready(), "a fixture has too few rows");
    assert!(matches!(
        report.n_rows,
        Some(Err(DataError::TooFewRows { found: 4, .. }))
    ));

    let report = TaskRegistry::builtin()
        .get("mmvet")
        .unwrap()
        .check(&fixture("mmvet"));
    assert!(report.is_ready());
    assert!(matches!(report.n_rows, Some(Ok(5))));
    assert!(matches!(report.first_sample, Some(Ok(5))));
}
