//! Videos as folders of frames: the answers of the reference, and invalid folders.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::files::bmp;
use crate::program::{Program, fixtures};

/// Returns the frames of a case in a separate folder, the chat, and the tokens of the answer.
struct Case {
    dir: TempDir,
    answer: Value,
    n_tokens: usize,
}

impl Case {
    fn read(name: &str) -> Self {
        let from = fixtures().join(name);
        let case: Value =
            serde_json::from_slice(&fs::read(from.join("case.json")).unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("frames")).unwrap();
        for frame in case["videos"][0]["frames"].as_array().unwrap() {
            let frame = frame.as_str().unwrap();
            fs::copy(from.join(frame), dir.path().join("frames").join(frame)).unwrap();
        }
        // Hidden files are not frames.
        fs::write(dir.path().join("frames/.note"), "not a frame").unwrap();
        fs::write(dir.path().join("chat.json"), case["messages"].to_string()).unwrap();
        Self {
            dir,
            answer: case["ar_ids"].clone(),
            n_tokens: case["ar_ids"].as_array().unwrap().len(),
        }
    }

    fn ask(&self, target: &str, fps: &str) -> Program {
        let frames = self.dir.path().join("frames");
        Program::generate(target)
            .path("--messages", &self.dir.path().join("chat.json"))
            .arg("--video")
            .arg(format!("{}{fps}", frames.display()))
            .args(&format!("--dtype f32 --max-new-tokens {}", self.n_tokens))
    }
}

#[test]
fn answers_about_videos_are_those_of_the_reference() {
    for (case, target, fps, method) in [
        (
            "qwen3-vl/cases/qwen3-tied/video-5f",
            "qwen3-tied",
            "",
            "none",
        ),
        (
            "qwen3-vl/cases/qwen3-tied/video-sampled",
            "qwen3-tied",
            "@10",
            "prompt-lookup",
        ),
        (
            "video/cases/qwen-tied/video-4f-fps2",
            "qwen-tied",
            "@2",
            "none",
        ),
    ] {
        let case = Case::read(case);
        let program = case.ask(target, fps).args(&format!("--method {method}"));
        let record = program.json();
        assert_eq!(record["token_ids"], case.answer, "{target}");
    }
}

#[test]
fn a_chat_shows_a_video_with_the_next_question() {
    let case = Case::read("qwen3-vl/cases/qwen3-tied/video-5f");
    let frames = case.dir.path().join("frames").display().to_string();
    let short = "--dtype f32 --max-new-tokens 12";
    let expected = Program::generate("qwen3-tied")
        .prompt("What happens?")
        .args(short)
        .arg("--video")
        .arg(&frames)
        .run();
    expected.assert_success();
    let lines =
        format!("/video /nonexistent\n/video {frames}@2\nWhat happens?\nAnd then?\n/quit\n");
    let outcome = Program::chat()
        .path("--target", &fixtures().join("models/qwen3-tied"))
        .args(short)
        .run_with_input(&lines);
    outcome.assert_success();
    let answer = expected.stdout.trim();
    assert!(
        outcome.stdout.contains(answer),
        "{answer:?} not in {outcome:?}"
    );
    for said in ["/nonexistent", "5 frames of", "speculation off"] {
        assert!(outcome.stderr.contains(said), "{said} not in {outcome:?}");
    }
}

/// Returns a folder with this number of frames.
fn folder(dir: &Path, frames: usize, side: u32) -> PathBuf {
    let path = dir.join(format!("frames-{frames}-{side}"));
    fs::create_dir(&path).unwrap();
    let first = path.join("00000.bmp");
    for frame in 0..frames {
        match frame {
            0 => fs::write(&first, bmp(side, side)).unwrap(),
            frame => fs::hard_link(&first, path.join(format!("{frame:05}.bmp"))).unwrap(),
        }
    }
    path
}

#[test]
fn bad_videos_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let good = folder(dir.path(), 4, 64);
    let mixed = folder(dir.path(), 3, 64);
    fs::write(mixed.join("00009.bmp"), bmp(64, 32)).unwrap();
    let broken = folder(dir.path(), 2, 64);
    fs::write(broken.join("00002.bmp"), "no image").unwrap();
    let show = |path: &Path, fps: &str| format!("{}{fps}", path.display());
    let cases = [
        (
            "no frames",
            show(&folder(dir.path(), 0, 1), ""),
            "is 0, expected at least 1 and at most 768",
        ),
        (
            "one frame",
            show(&folder(dir.path(), 1, 64), ""),
            "is 1, expected at least 2",
        ),
        ("a rate of 0", show(&good, "@0"), "0 frames per second"),
        ("no rate", show(&good, "@nan"), "NaN frames per second"),
        ("small", show(&folder(dir.path(), 4, 16), ""), "16"),
        ("sizes", show(&mixed, ""), "frame 3"),
        ("no image", show(&broken, ""), "00002.bmp"),
        ("no folder", show(&dir.path().join("none"), ""), "none"),
        (
            "thousands",
            show(&folder(dir.path(), 5000, 64), ""),
            "the limit is",
        ),
        (
            "large",
            show(&folder(dir.path(), 768, 512), ""),
            "the limit is",
        ),
    ];
    for (what, video, name) in cases {
        Program::generate("qwen3-tied")
            .prompt("What happens?")
            .arg("--video")
            .arg(video)
            .run()
            .assert_refused(what, 1, &[name]);
    }
    Program::generate("llava-15")
        .prompt("What happens?")
        .arg("--video")
        .arg(&good)
        .run()
        .assert_refused("another family", 1, &["does not read videos"]);
}
