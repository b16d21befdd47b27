//! Datasets of chats about pictures, the input of `capture --source chat`.

use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::json;

/// Name of the chat file in its directory.
const CHATS: &str = "chats.jsonl";

/// The image or video of a row.
#[derive(Debug)]
pub enum Shown {
    /// The name of an image.
    Image(String),
    /// The folder of a video's frames, with the frame rate.
    Video(String),
}

/// Writes `chats.jsonl`. The file appears complete and last: if it exists, all pictures exist.
#[derive(Debug)]
pub struct ChatWriter {
    file: BufWriter<File>,
    partial: PathBuf,
    path: PathBuf,
}

impl ChatWriter {
    /// Starts a file in `dir`, which is created if missing.
    ///
    /// # Errors
    /// If the file cannot be written.
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

    /// Adds a question about an image or video, with its correct answer.
    ///
    /// # Errors
    /// If the file cannot be written.
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

    /// Moves the finished file into place.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn finish(mut self) -> anyhow::Result<()> {
        let flushed = self.file.flush();
        flushed.with_context(|| self.partial.display().to_string())?;
        fs::rename(&self.partial, &self.path).with_context(|| self.path.display().to_string())
    }
}

/// Returns the item for `index` when cycling through `items`, and the number of complete cycles
/// before.
#[must_use]
pub fn taken<T>(items: &[T], index: u64) -> (&T, u64) {
    let len = items.len() as u64;
    (&items[(index % len) as usize], index / len)
}
