//! A model that Hugging Face tools have downloaded loads by its id, without a network.
#![cfg(feature = "hub")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A cache in the layout of the Hugging Face tools: snapshots by commit, named by refs.
struct HubCache {
    home: TempDir,
}

impl HubCache {
    /// Adds a tiny target and its draft.
    fn new() -> Self {
        let cache = Self {
            home: tempfile::tempdir().unwrap(),
        };
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures");
        cache.add("target", &fixtures.join("models/qwen-tied"));
        cache.add("draft", &fixtures.join("drafts/qwen-tied-q2"));
        cache
    }

    fn add(&self, name: &str, files: &Path) {
        let repo = self.home.path().join(format!("hub/models--tiny--{name}"));
        let snapshot = repo.join("snapshots").join(COMMIT);
        fs::create_dir_all(&snapshot).unwrap();
        fs::create_dir_all(repo.join("refs")).unwrap();
        fs::write(repo.join("refs/main"), COMMIT).unwrap();
        for file in fs::read_dir(files).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), snapshot.join(file.file_name())).unwrap();
        }
    }

    fn remove(&self, name: &str, file: &str) {
        let repo = self.home.path().join(format!("hub/models--tiny--{name}"));
        fs::remove_file(repo.join("snapshots").join(COMMIT).join(file)).unwrap();
    }

    fn generate(&self) -> Output {
        Command::new(env!("CARGO_BIN_EXE_generate"))
            .env("HF_HOME", self.home.path())
            // Nothing listens there, so any network access fails immediately.
            .env("HF_ENDPOINT", "http://127.0.0.1:9")
            .args(["--target", "tiny/target", "--draft", "tiny/draft"])
            .args([
                "--prompt",
                "What is a circle?",
                "--max-new-tokens",
                "8",
                "--json",
            ])
            .output()
            .unwrap()
    }
}

#[test]
fn a_cached_model_loads_by_its_id() {
    let output = HubCache::new().generate();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["method"], "vispec+lookup");
    assert_eq!(report["new_tokens"], 8);
}

#[test]
fn an_incomplete_download_is_not_taken_for_a_model() {
    let cache = HubCache::new();
    cache.remove("target", "model.safetensors");
    let output = cache.generate();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("tiny/target") && stderr.contains("cache"),
        "{stderr}"
    );
}
