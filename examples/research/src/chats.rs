//! Data sets of chats about pictures, which `capture --source chat` reads.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;

/// Name of the file of chats in its directory.
const CHATS: &str = "chats.jsonl";

/// What a row shows.
#[derive(Debug)]
pub enum Shown {
    /// The name of its picture.
    Image(String),
    /// The folder of its frames, with their rate.
    Video(String),
}

/// Writes `chats.jsonl`. The file comes last and at once: where it is, all pictures are.
#[derive(Debug)]
pub struct ChatWriter {
    file: BufWriter<File>,
    partial: PathBuf,
    path: PathBuf,
}

impl ChatWriter {
    /// Starts a file in `dir`, which is made if it is not there.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn create(dir: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let partial = dir.join(format!("{CHATS}.partial"));
        let file = File::create(&partial).with_context(|| partial.display().to_string())?;
        Ok(Self {
            file: BufWriter::new(file),
            path: dir.join(CHATS),
            partial,
        })
    }

    /// Adds a question about what is shown, with its right answer.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(
        &mut self,
        id: &str,
        shown: &Shown,
        question: &str,
        answer: &str,
    ) -> anyhow::Result<()> {
        let (kind, column, name) = match shown {
            Shown::Image(image) => ("image", "images", image),
            Shown::Video(video) => ("video", "videos", video),
        };
        let row = json!({
            "id": id,
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": kind}, {"type": "text", "text": question}],
                },
                {"role": "assistant", "content": answer},
            ],
            column: [name],
        });
        writeln!(self.file, "{row}").with_context(|| self.partial.display().to_string())
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(mut self) -> anyhow::Result<()> {
        let flushed = self.file.flush();
        flushed.with_context(|| self.partial.display().to_string())?;
        fs::rename(&self.partial, &self.path).with_context(|| self.path.display().to_string())
    }
}

/// The item whose turn it is, and how often all items were gone through before.
#[must_use]
pub fn taken<T>(items: &[T], index: u64) -> (&T, u64) {
    let len = items.len() as u64;
    (&items[(index % len) as usize], index / len)
}
