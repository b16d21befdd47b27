//! The part of a task's TOML file that names the format and the files of its rows.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::scenes::{QuestionKind, SceneStyle};

/// Columns with a fixed value in all rows of a file, which does not contain them itself.
pub(crate) type Constants = BTreeMap<String, String>;

/// Format and files of a task.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "format", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum RowsDefinition {
    /// One JSON object per line.
    JsonLines { files: Vec<FileEntry> },
    /// A JSON list of objects, or an object with such a list in the field `list`.
    Json {
        files: Vec<FileEntry>,
        list: Option<String>,
    },
    /// Tab-separated values with a header, images in base64.
    Tsv { files: Vec<FileEntry> },
    /// Parquet as on the Hugging Face hub.
    Parquet { files: Vec<FileEntry> },
    /// ScienceQA's own two files.
    ScienceQa {
        problems: String,
        splits: String,
        split: String,
    },
    /// Drawn scenes, without files.
    Scenes {
        style: SceneStyle,
        seed: u64,
        count: usize,
        questions: QuestionKind,
    },
}

impl RowsDefinition {
    /// Returns the paths and patterns of the files, relative to the data directory.
    pub(crate) fn files(&self) -> Vec<&str> {
        match self {
            Self::JsonLines { files }
            | Self::Json { files, .. }
            | Self::Tsv { files }
            | Self::Parquet { files } => files.iter().map(FileEntry::path).collect(),
            Self::ScienceQa {
                problems, splits, ..
            } => vec![problems, splits],
            Self::Scenes { .. } => Vec::new(),
        }
    }
}

/// A file or pattern, optionally with constant columns.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum FileEntry {
    Path(String),
    WithConstants { path: String, set: Constants },
}

impl FileEntry {
    pub(super) fn path(&self) -> &str {
        match self {
            Self::Path(path) | Self::WithConstants { path, .. } => path,
        }
    }

    pub(super) fn constants(&self) -> Constants {
        match self {
            Self::Path(_) => Constants::new(),
            Self::WithConstants { set, .. } => set.clone(),
        }
    }
}
