//! `draws.jsonl`: every sampled text in order, with its verdict.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::judge::{Drawn, Judge, Verdict};

const FILE: &str = "draws.jsonl";

/// The settings that determine the draws, stored in the first line of the file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DrawSettings {
    /// Fingerprint of the target.
    pub(super) target: String,
    /// Element type of its weights.
    pub(super) dtype: String,
    /// Number of questions to keep.
    pub(super) questions: usize,
    /// Seed; the number of the draw is added to it.
    pub(super) seed: u64,
    pub(super) temperature: Written,
    pub(super) top_p: Written,
    /// Maximum number of tokens per question.
    pub(super) max_tokens: usize,
}

/// An `f32` written in its shortest decimal form: 0.8 instead of the nearest 32-bit value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "f64", into = "f64")]
pub(super) struct Written(pub(super) f32);

impl From<f64> for Written {
    #[expect(clippy::cast_possible_truncation, reason = "it was an f32")]
    fn from(value: f64) -> Self {
        Self(value as f32)
    }
}

impl From<Written> for f64 {
    fn from(Written(value): Written) -> Self {
        value.to_string().parse().unwrap_or(f64::from(value))
    }
}

/// Any later line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Draw {
    draw: usize,
    verdict: Verdict,
    text: String,
}

/// The draws of earlier runs and of this one. A kill loses the draws that were not written yet;
/// they are repeated.
#[derive(Debug)]
pub(super) struct DrawLog {
    pub(super) settings: DrawSettings,
    path: PathBuf,
    /// Locked while it is open.
    file: File,
    judge: Judge,
    counts: BTreeMap<Verdict, usize>,
    /// Number and text of each kept question.
    kept: Vec<(usize, String)>,
}

impl DrawLog {
    /// Opens or creates the file in `dir`. An incomplete last line is dropped.
    ///
    /// # Errors
    /// If the file belongs to other settings, is locked by another process, or cannot be read and
    /// written.
    pub(super) fn open(dir: &Path, settings: DrawSettings) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let path = dir.join(FILE);
        let at = || path.display().to_string();
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false);
        let mut file = file.open(&path).with_context(at)?;
        if file.try_lock().is_err() {
            bail!("{}: another process is sampling these questions", at());
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).with_context(at)?;
        let whole = text.iter().rposition(|&byte| byte == b'\n');
        let whole = whole.map_or(0, |last| last + 1);
        file.set_len(whole as u64).with_context(at)?;
        file.seek(SeekFrom::End(0)).with_context(at)?;
        let mut log = Self {
            settings,
            file,
            judge: Judge::default(),
            counts: BTreeMap::new(),
            kept: Vec::new(),
            path,
        };
        if whole == 0 {
            let settings = serde_json::to_value(&log.settings)?;
            log.write(&settings)?;
            return Ok(log);
        }
        let mut lines = text[..whole - 1].split(|&byte| byte == b'\n');
        log.check_settings(lines.next().unwrap_or_default())?;
        for (place, line) in lines.enumerate() {
            let draw: Option<Draw> = serde_json::from_slice(line).ok();
            let draw = draw.filter(|draw| draw.draw == place);
            let draw = draw.with_context(|| {
                format!(
                    "{}: line {} is not draw {place}",
                    log.path.display(),
                    place + 2
                )
            })?;
            if draw.verdict == Verdict::Kept {
                log.judge.remember(&draw.text);
            }
            log.count(draw);
        }
        Ok(log)
    }

    fn check_settings(&self, line: &[u8]) -> Result<()> {
        let path = self.path.display();
        let found: Option<Value> = serde_json::from_slice(line).ok();
        let found = found.with_context(|| format!("{path}: line 1 is not of a run"))?;
        let expected = serde_json::to_value(&self.settings)?;
        let expected = expected.as_object().into_iter().flatten();
        for (name, expected) in expected {
            let found = &found[name];
            ensure!(
                found == expected,
                "{path}: {name} is {found}, expected {expected}"
            );
        }
        Ok(())
    }

    /// Returns the number of draws.
    pub(super) fn len(&self) -> usize {
        self.counts.values().sum()
    }

    /// Returns the number of kept questions.
    pub(super) fn n_kept(&self) -> usize {
        self.kept.len()
    }

    /// Returns the number of draws per verdict as text.
    pub(super) fn summary(&self) -> String {
        let counts = self
            .counts
            .iter()
            .map(|(verdict, n)| format!("{n} {verdict}"));
        format!(
            "{} draws: {}",
            self.len(),
            Vec::from_iter(counts).join(", ")
        )
    }

    /// Judges the next draw and records it; returns whether it was kept.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn add(&mut self, drawn: Drawn) -> Result<bool> {
        let verdict = self.judge.judge(&drawn);
        let draw = Draw {
            draw: self.len(),
            verdict,
            text: drawn.text,
        };
        self.write(&serde_json::to_value(&draw)?)?;
        self.count(draw);
        Ok(verdict == Verdict::Kept)
    }

    /// Returns the questions as rows of a chat file.
    pub(super) fn rows(&self) -> Vec<Value> {
        let rows = self.kept.iter().map(|(draw, text)| {
            json!({
                "id": format!("draw {draw}"),
                "messages": [{"role": "user", "content": text}],
            })
        });
        rows.collect()
    }

    fn count(&mut self, draw: Draw) {
        *self.counts.entry(draw.verdict).or_default() += 1;
        if draw.verdict == Verdict::Kept {
            self.kept.push((draw.draw, draw.text));
        }
    }

    /// Writes a line at once, so that a kill leaves at most one partial line.
    fn write(&mut self, line: &Value) -> Result<()> {
        let written = self.file.write_all(format!("{line}\n").as_bytes());
        written.with_context(|| self.path.display().to_string())
    }
}
