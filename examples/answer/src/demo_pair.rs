//! A tiny target and its draft, built into programs so that they run without a download.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use tempfile::TempDir;

macro_rules! carried {
    ($($path:literal),* $(,)?) => {
        &[$((
            $path,
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../fixtures/", $path)).as_slice(),
        )),*]
    };
}

/// Files of the pair by their paths in `fixtures`. The target comes from `make_target`, the draft
/// from `cargo xtask reproduce`.
const FILES: &[(&str, &[u8])] = carried![
    "models/qwen-scenes/chat_template.json",
    "models/qwen-scenes/config.json",
    "models/qwen-scenes/generation_config.json",
    "models/qwen-scenes/model.safetensors",
    "models/qwen-scenes/preprocessor_config.json",
    "models/qwen-scenes/tokenizer.json",
    "models/qwen-scenes/tokenizer_config.json",
    "drafts/qwen-scenes-q2/config.json",
    "drafts/qwen-scenes-q2/model.safetensors",
];

/// The pair in a temporary directory that is deleted with this value.
#[derive(Debug)]
pub struct DemoPair {
    dir: TempDir,
}

impl DemoPair {
    /// Display name of the pair.
    pub const NAME: &str = "vispec-demo";

    /// Share of the time of plain decoding that drafting may lose; larger than the default, because
    /// answers are short.
    pub const MAX_LOSS: f64 = 0.2;

    /// Writes the pair to a temporary directory, so that the files can be memory-mapped.
    ///
    /// # Errors
    /// If the files cannot be written.
    pub fn unpack() -> anyhow::Result<Self> {
        let dir = TempDir::with_prefix("vispec-demo-").context("temporary directory")?;
        for (path, bytes) in FILES {
            let path = dir.path().join(path);
            let parent = path.parent().unwrap_or(dir.path());
            let written = fs::create_dir_all(parent).and_then(|()| fs::write(&path, bytes));
            written.with_context(|| path.display().to_string())?;
        }
        Ok(Self { dir })
    }

    /// Returns the directory of the target.
    #[must_use]
    pub fn target(&self) -> PathBuf {
        self.place("models/qwen-scenes")
    }

    /// Returns the directory of the draft.
    #[must_use]
    pub fn draft(&self) -> PathBuf {
        self.place("drafts/qwen-scenes-q2")
    }

    fn place(&self, path: &str) -> PathBuf {
        self.dir.path().join(Path::new(path))
    }
}
