//! A file of JSON lines, one per image, that stays valid when a run is killed.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde_json::Value;

/// Captions of earlier runs and of this one.
#[derive(Debug)]
pub struct CaptionFile {
    path: PathBuf,
    prompt: String,
    file: File,
    done: HashSet<String>,
}

impl CaptionFile {
    /// Opens or creates the file of captions that answer `prompt`. An incomplete last line, as left
    /// by a killed run, is dropped.
    ///
    /// # Errors
    /// If the file cannot be read or written, or has a line that was not written by a run or
    /// answers a different prompt.
    pub fn open(path: &Path, prompt: &str) -> anyhow::Result<Self> {
        let at = || path.display().to_string();
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false);
        let mut file = file.open(path).with_context(at)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).with_context(at)?;
        let whole = bytes.iter().rposition(|&byte| byte == b'\n');
        let whole = whole.map_or(0, |last| last + 1);
        let mut done = HashSet::new();
        for (index, line) in bytes[..whole].split(|&byte| byte == b'\n').enumerate() {
            if line.is_empty() {
                continue;
            }
            let row: Option<Value> = serde_json::from_slice(line).ok();
            let image = row.as_ref().and_then(|row| row["image"].as_str());
            let image = image.with_context(|| {
                format!("{}: line {} has no field image", path.display(), index + 1)
            })?;
            // Files of earlier versions do not contain the prompt.
            let asked = row.as_ref().and_then(|row| row["prompt"].as_str());
            anyhow::ensure!(
                asked.is_none_or(|asked| asked == prompt),
                "{}: line {} answers the prompt {:?}, expected {prompt:?}; use another file",
                path.display(),
                index + 1,
                asked.unwrap_or_default()
            );
            done.insert(image.to_owned());
        }
        anyhow::ensure!(
            bytes[whole..].first().is_none_or(|&byte| byte == b'{'),
            "{}: the last line was not written by this program",
            path.display()
        );
        file.set_len(whole as u64).with_context(at)?;
        file.seek(SeekFrom::End(0)).with_context(at)?;
        Ok(Self {
            path: path.to_owned(),
            prompt: prompt.to_owned(),
            file,
            done,
        })
    }

    /// Returns `true` if the image has a line.
    #[must_use]
    pub fn has(&self, image: &str) -> bool {
        self.done.contains(image)
    }

    /// Writes the line of an image: an object with the fields of `row`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn append(&mut self, image: &str, mut row: Value) -> anyhow::Result<()> {
        row["image"] = image.into();
        row["prompt"] = self.prompt.as_str().into();
        // A single write, so that a kill leaves at most one incomplete line.
        let line = format!("{row}\n");
        let written = self.file.write_all(line.as_bytes());
        written.with_context(|| self.path.display().to_string())?;
        self.done.insert(image.to_owned());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cut_line_is_written_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("captions.jsonl");
        let mut file = CaptionFile::open(&path, "What?").unwrap();
        file.append("a.png", json!({"caption": "A."})).unwrap();
        file.append("b.png", json!({"caption": "B."})).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for len in 0..=whole.len() {
            std::fs::write(&path, &whole[..len]).unwrap();
            let mut file = CaptionFile::open(&path, "What?").unwrap();
            for (image, caption) in [("a.png", "A."), ("b.png", "B.")] {
                if !file.has(image) {
                    file.append(image, json!({"caption": caption})).unwrap();
                }
            }
            assert_eq!(std::fs::read(&path).unwrap(), whole, "cut at {len}");
        }
    }

    #[test]
    fn answers_to_two_prompts_are_not_mixed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("captions.jsonl");
        let mut file = CaptionFile::open(&path, "What?").unwrap();
        file.append("a.png", json!({"caption": "A."})).unwrap();
        let error = CaptionFile::open(&path, "Where?").unwrap_err().to_string();
        assert!(error.contains("\"What?\", expected \"Where?\""), "{error}");
        assert!(CaptionFile::open(&path, "What?").unwrap().has("a.png"));
    }

    #[test]
    fn other_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.txt");
        for (notes, named) in [("my notes\nare dear", "line 1"), ("my notes", "last line")] {
            std::fs::write(&path, notes).unwrap();
            let error = CaptionFile::open(&path, "What?").unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), notes);
        }
    }
}
