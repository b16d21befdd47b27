//! `evaluate --throughput`: batches compared with one answer at a time.

use std::fs;

use serde_json::Value;

use crate::program::Program;

#[test]
fn batches_are_measured_beside_single_answers() {
    let dir = tempfile::tempdir().unwrap();
    let evaluate = |out: &str| {
        Program::evaluate("qwen-tied", &dir.path().join(out))
            .args("--task scenes_short --prompts 5 --max-new-tokens 12 --throughput")
    };
    let outcome = evaluate("draft")
        .draft("qwen-tied-q2")
        .args("--method vispec --total-token 8 --top-k 4 --depth 2 --batch 3")
        .run();
    outcome.assert_success();
    let record = fs::read(dir.path().join("draft/throughput.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    assert_eq!(record["cell"]["settings"]["task"], "scenes_short");
    let runs = record["runs"].as_array().unwrap();
    let kinds = runs
        .iter()
        .map(|run| (run["method"].as_str(), run["batch"].as_u64()));
    let expected = [("none", 1), ("none", 3), ("vispec", 1), ("vispec", 3)];
    let expected = expected.map(|(method, batch)| (Some(method), Some(batch)));
    assert_eq!(Vec::from_iter(kinds), expected);
    for run in runs {
        assert_eq!(run["prompts"], 5);
        assert_eq!(run["new_tokens"], runs[0]["new_tokens"]);
        assert_eq!(run["prompt_tokens"], runs[0]["prompt_tokens"]);
        assert_eq!(run["identical"], true);
        let (speed, time) = (run["tokens_per_second"].as_f64(), run["seconds"].as_f64());
        let tokens = speed.unwrap() * time.unwrap();
        assert!((tokens - run["new_tokens"].as_f64().unwrap()).abs() < 1e-6);
        if run["batch"] == 1 {
            assert_eq!(run["over_one"], 1.0);
        }
    }
    assert!(runs[0]["new_tokens"].as_u64() > Some(5));
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert!(lines[1].starts_with("none, batch 3: "), "{lines:?}");
    assert!(
        lines[3].ends_with(" x batch 1, identical: yes"),
        "{lines:?}"
    );
    let files = fs::read_dir(dir.path().join("draft")).unwrap();
    assert_eq!(files.count(), 1);

    // Without a draft there is one method; the default batch size is eight.
    let outcome = evaluate("plain").args("--method none").run();
    outcome.assert_success();
    assert_eq!(outcome.stdout.lines().count(), 2);
    assert!(outcome.stdout.contains("none, batch 8: "));
}

#[test]
fn a_batch_without_throughput_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let evaluate =
        Program::evaluate("qwen-tied", dir.path()).args("--task scenes_short --method none");
    let outcome = evaluate.args("--batch 2").run();
    assert_eq!(outcome.code, Some(2));
    assert!(
        outcome.stderr.contains("--throughput"),
        "{}",
        outcome.stderr
    );
}
