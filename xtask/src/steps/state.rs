//! Records of finished steps and their inputs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use vispec_report::write_whole;

/// The record of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Marker {
    /// Hash of everything that the output depends on.
    pub(crate) key: String,
    /// Seconds that it took; `None` while it is not finished.
    pub(crate) seconds: Option<f64>,
    /// Whether it was started more than once; then `seconds` counts only the last run.
    pub(crate) resumed: bool,
}

/// The markers of a directory, one file per step. Locked by one process at a time.
#[derive(Debug)]
pub(crate) struct State {
    dir: PathBuf,
    _lock: File,
}

impl State {
    /// Opens the state below `out`.
    pub(crate) fn open(out: &Path) -> Result<Self> {
        let dir = out.join("steps");
        fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        let path = dir.join("lock");
        let lock = File::create(&path).with_context(|| path.display().to_string())?;
        if lock.try_lock().is_err() {
            bail!(
                "{}: another process is working in this directory",
                out.display()
            );
        }
        Ok(Self { dir, _lock: lock })
    }

    fn path(&self, step: &str) -> PathBuf {
        self.dir.join(format!("{step}.json"))
    }

    /// Reads the marker of a step, if there is one. A damaged marker is an error, because other
    /// files may be damaged, too.
    pub(crate) fn marker(&self, step: &str) -> Result<Option<Marker>> {
        let path = self.path(step);
        if !path.exists() {
            return Ok(None);
        }
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let marker = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        Ok(Some(marker))
    }

    /// Moves the output of a step to the folder `old`, which nothing reads. It is not deleted
    /// because it may be hours of work.
    pub(crate) fn set_aside(&self, step: &str, output: &Path) -> Result<PathBuf> {
        let old = self.dir.with_file_name("old");
        fs::create_dir_all(&old).with_context(|| old.display().to_string())?;
        let mut names =
            (1..).map(|number: u32| old.join(format!("{}-{number}", step.replace('/', "-"))));
        let aside = names.find(|aside| !aside.exists());
        let aside = aside.with_context(|| old.display().to_string())?;
        fs::rename(output, &aside).with_context(|| output.display().to_string())?;
        Ok(aside)
    }

    /// Writes the marker of a step, first under a temporary name.
    pub(crate) fn write(&self, step: &str, marker: &Marker) -> Result<()> {
        let text = serde_json::to_string_pretty(marker)?;
        Ok(write_whole(&self.path(step), text.as_bytes())?)
    }
}

/// Hashes everything that the output of a step depends on.
#[derive(Debug, Default)]
pub(crate) struct KeyHasher(Sha256);

impl KeyHasher {
    /// Adds a text.
    pub(crate) fn text(mut self, text: &str) -> Self {
        // The length keeps "ab", "c" and "a", "bc" apart.
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
        self
    }

    /// Adds the contents of a file.
    pub(crate) fn file(mut self, path: &Path) -> Result<Self> {
        let bytes = fs::read(path).with_context(|| path.display().to_string())?;
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        Ok(self)
    }

    /// Adds names and contents of the files of a directory.
    pub(crate) fn dir(self, dir: &Path) -> Result<Self> {
        let entries = fs::read_dir(dir).with_context(|| dir.display().to_string())?;
        let mut paths = Vec::new();
        for entry in entries {
            paths.push(entry?.path());
        }
        paths.sort();
        paths.iter().try_fold(self, |hasher, path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            hasher.text(&name).file(path)
        })
    }

    /// Returns the hash in hexadecimal.
    pub(crate) fn key(self) -> String {
        let hash = self.0.finalize();
        hash.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_texts_and_files_apart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        fs::write(&file, "one").unwrap();
        let key = |texts: &[&str]| {
            let hasher = texts
                .iter()
                .fold(KeyHasher::default(), |hasher, text| hasher.text(text));
            hasher.dir(dir.path()).unwrap().key()
        };
        let first = key(&["ab", "c"]);
        assert_eq!(first, key(&["ab", "c"]));
        assert_ne!(first, key(&["a", "bc"]));
        fs::write(&file, "two").unwrap();
        assert_ne!(first, key(&["ab", "c"]));
    }

    #[test]
    fn a_state_is_held_by_one_process_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        assert!(State::open(dir.path()).is_err());
        assert_eq!(state.marker("draw").unwrap(), None);
        let marker = Marker {
            key: "k".to_owned(),
            seconds: Some(1.5),
            resumed: false,
        };
        state.write("draw", &marker).unwrap();
        drop(state);
        let state = State::open(dir.path()).unwrap();
        assert_eq!(state.marker("draw").unwrap(), Some(marker));
        fs::write(dir.path().join("steps/draw.json"), "{").unwrap();
        assert!(state.marker("draw").is_err());
    }
}
