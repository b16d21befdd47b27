//! Answers that are generated several at a time.

use std::fs;
use std::path::Path;

use serde_json::json;
use tempfile::TempDir;

use crate::llava_rows;
use crate::program::{capture, files, fixtures, refuse, run_args, strs, succeed, text};
use crate::stage_2;

/// Returns the content of a capture with these flags and this batch size.
fn written(model: &str, flags: &[String], batch: &str) -> (TempDir, Vec<String>) {
    let out = tempfile::tempdir().unwrap();
    let mut args = run_args(model, out.path(), "--batch");
    args.push(batch.to_owned());
    args.extend_from_slice(flags);
    (out, args)
}

fn split(flags: &str) -> Vec<String> {
    flags.split_whitespace().map(str::to_owned).collect()
}

/// Checks that runs with batch sizes 1, 3 and 8 leave the same bytes.
#[track_caller]
fn same_in_any_batch(model: &str, flags: &[String]) {
    let (alone, args) = written(model, flags, "1");
    succeed(&args);
    let expected = files(alone.path());
    for batch in ["3", "8"] {
        let (together, args) = written(model, flags, batch);
        succeed(&args);
        assert!(files(together.path()) == expected, "{batch}: {flags:?}");
    }
}

#[test]
fn a_batch_changes_nothing_but_the_time() {
    for storage in ["full", "compact"] {
        same_in_any_batch("qwen-tied", &split(&stage_2(storage)));
    }
    // Sampled, with a draft, and with images in the samples.
    let draft = fixtures().join("drafts/llava-next-q2");
    let flags = format!(
        "{} --temperature 0.8 --draft {}",
        stage_2("packed"),
        draft.display()
    );
    same_in_any_batch("llava-next", &split(&flags));
}

#[test]
fn bad_and_dropped_rows_are_the_same_in_any_batch() {
    let (_data, mut flags) = llava_rows();
    flags.extend(split("--stage 2 --max-new-tokens 8 --max-bad-rows 3"));
    same_in_any_batch("llava-15", &flags);
    // The second of three bad rows ends the run, and earlier samples are kept.
    *flags.last_mut().unwrap() = "1".to_owned();
    let stored = ["1", "8"].map(|batch| {
        let (out, args) = written("llava-15", &flags, batch);
        refuse(&args, 1, &["2 bad rows, 1 are tolerated"]);
        let message = text(&capture(&strs(&args)).stderr);
        (files(&out.path().join("pending")), message)
    });
    assert_eq!(stored[0], stored[1]);
}

/// Copies `llava-15` without an embedding for `Z`.
fn without_z() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(fixtures().join("models/llava-15")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    let tokenizer = fs::read(dir.path().join("tokenizer.json")).unwrap();
    let tokenizer: serde_json::Value = serde_json::from_slice(&tokenizer).unwrap();
    let token = tokenizer["model"]["vocab"]["Z"].as_u64().unwrap();
    let path = dir.path().join("model.safetensors");
    let mut bytes = fs::read(&path).unwrap();
    let head = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let data = 8 + usize::try_from(head).unwrap();
    let head: serde_json::Value = serde_json::from_slice(&bytes[8..data]).unwrap();
    let tensor = &head["language_model.model.embed_tokens.weight"];
    let width = tensor["shape"][1].as_u64().unwrap();
    let row = tensor["data_offsets"][0].as_u64().unwrap() + 4 * width * token;
    let start = data + usize::try_from(row).unwrap();
    bytes[start..start + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    dir
}

/// Writes ten questions; those at positions 4 and 6 cannot be answered.
fn questions(dir: &Path) -> Vec<String> {
    let rows = (0..10).map(|index| {
        let text = if index == 4 || index == 6 {
            "Z?"
        } else {
            "What is it?"
        };
        json!({"id": index.to_string(), "messages": [{"role": "user", "content": text}]})
    });
    let rows: Vec<String> = rows.map(|row| row.to_string()).collect();
    let file = dir.join("questions.jsonl");
    fs::write(&file, rows.join("\n")).unwrap();
    let flags = format!("--source chat --data {} --as-is --stage 2", file.display());
    split(&flags)
}

#[test]
fn a_generation_that_fails_ends_the_run_in_any_batch() {
    let (target, data) = (without_z(), tempfile::tempdir().unwrap());
    let flags = questions(data.path());
    // An absolute path replaces the folder of the models.
    let model = target.path().to_str().unwrap();
    let (alone, args) = written(model, &flags, "1");
    let message = text(&capture(&strs(&args)).stderr);
    refuse(&args, 1, &["logits are not finite"]);
    let before = files(&alone.path().join("pending"));
    assert!((1..9).contains(&before.len()), "{before:?}");
    for batch in ["3", "8"] {
        let (together, args) = written(model, &flags, batch);
        assert_eq!(text(&capture(&strs(&args)).stderr), message);
        let kept = files(&together.path().join("pending"));
        assert!(
            before
                .iter()
                .all(|(name, bytes)| kept.get(name) == Some(bytes))
        );
        // The failure recurs, and stored samples are not written again.
        assert_eq!(text(&capture(&strs(&args)).stderr), message);
    }
}

#[test]
fn batches_are_bounded() {
    for batch in ["0", "257", "-1"] {
        let (_out, args) = written("llava-15", &split(&stage_2("full")), batch);
        refuse(&args, 2, &["--batch", "1..=256"]);
    }
}
