//! Rows with videos.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use vispec_data::capture::CaptureReader;

use crate::program::{fixtures, run_args, succeed};

/// Writes a folder with the frames of a reference case, and rows about them.
fn rows(case: &str) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let from = fixtures().join(case);
    let read = fs::read(from.join("case.json")).unwrap();
    let read: Value = serde_json::from_slice(&read).unwrap();
    fs::create_dir(dir.path().join("clip")).unwrap();
    for frame in read["videos"][0]["frames"].as_array().unwrap() {
        let frame = frame.as_str().unwrap();
        fs::copy(from.join(frame), dir.path().join("clip").join(frame)).unwrap();
    }
    let row = |parts: &[&str], videos: &[&str]| {
        let parts = parts
            .iter()
            .map(|kind| json!({"type": kind, "text": "What happens?"}));
        let user = json!({"role": "user", "content": Vec::from_iter(parts)});
        let answer = json!({"role": "assistant", "content": "It moves."});
        let mut row = json!({"messages": [user, answer]});
        if !videos.is_empty() {
            row["videos"] = json!(videos);
        }
        row
    };
    let rows = [
        row(&["video", "text"], &["clip"]),
        row(&["text"], &[]),
        row(&["text", "video", "video"], &["clip@4", "clip"]),
        row(&["video", "text"], &[]),
    ];
    let lines = rows.map(|row| row.to_string());
    let file = dir.path().join("rows.jsonl");
    fs::write(&file, lines.join("\n")).unwrap();
    (dir, file)
}

fn captured(target: &str, storage: &str, (dir, file): (&Path, &Path)) -> CaptureReader {
    let out = dir.join(format!("{target}-{storage}"));
    let flags = format!(
        "--source chat --data {} --images {} --stage 2 --as-is --max-new-tokens 6 --dtype f32 \
         --storage {storage}",
        file.display(),
        dir.display(),
    );
    succeed(&run_args(target, &out, &flags));
    CaptureReader::open(&out).unwrap()
}

#[test]
fn what_a_target_reads_of_videos_is_kept() {
    for (case, target) in [
        ("video/cases/qwen-tied/video-4f-fps2", "qwen-tied"),
        ("qwen3-vl/cases/qwen3-tied/video-5f", "qwen3-tied"),
    ] {
        let (dir, file) = rows(case);
        let capture = captured(target, "full", (dir.path(), &file));
        // The last row has a placeholder for a video but no video.
        assert_eq!(capture.len(), 3, "{target}");
        let tokens = (0..3).map(|index| {
            let sample = capture.sample(index).unwrap();
            assert_eq!(sample.input_embeds.nrows(), sample.token_ids.len());
            sample.image_mask.iter().filter(|&&shown| shown).count()
        });
        let mut tokens = Vec::from_iter(tokens);
        tokens.sort_unstable();
        // No video, one, and two.
        assert_eq!(tokens[0], 0, "{target}");
        assert!(
            0 < tokens[1] && tokens[1] < tokens[2],
            "{target}: {tokens:?}"
        );
        // Only images can be read again.
        let packed = captured(target, "packed", (dir.path(), &file));
        assert_eq!(packed.len(), 1, "{target}");
    }
}
