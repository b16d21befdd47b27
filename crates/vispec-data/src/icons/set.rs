//! One set of icons.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::names::plain_code;
use crate::error::DataError;

/// How deep below the directory that is given sets may lie: `node_modules/@iconify-json/noto`.
const DEPTH: usize = 3;

/// `icons.json`
#[derive(Debug, Deserialize)]
struct File {
    prefix: String,
    icons: BTreeMap<String, Icon>,
    #[serde(default)]
    left: f64,
    #[serde(default)]
    top: f64,
    width: Option<f64>,
    height: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Icon {
    body: String,
    left: Option<f64>,
    top: Option<f64>,
    width: Option<f64>,
    height: Option<f64>,
    #[serde(default)]
    hidden: bool,
}

/// `info.json`
#[derive(Deserialize)]
struct Info {
    license: Option<License>,
}

#[derive(Deserialize)]
struct License {
    title: String,
}

/// The drawings of one designer.
#[derive(Debug)]
pub(super) struct IconSet {
    file: File,
    license: Option<String>,
    /// Names of icons by code points; empty where the set does not say.
    codes: BTreeMap<String, String>,
}

/// Sides of icons that say nothing of theirs, as in Iconify.
const DEFAULT_SIDE: f64 = 16.0;

impl IconSet {
    pub(super) fn read(dir: &Path) -> Result<Self, DataError> {
        let file: File = json(&dir.join("icons.json"))?;
        let info = dir.join("info.json");
        let license = if info.is_file() {
            json::<Info>(&info)?.license.map(|license| license.title)
        } else {
            None
        };
        let chars = dir.join("chars.json");
        let codes: BTreeMap<String, String> = if chars.is_file() {
            json(&chars)?
        } else {
            BTreeMap::new()
        };
        let codes = codes.into_iter();
        Ok(Self {
            file,
            license,
            codes: codes
                .map(|(code, name)| (plain_code(&code), name))
                .collect(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.file.prefix
    }

    pub(super) fn license(&self) -> Option<&str> {
        self.license.as_deref()
    }

    /// Names of all icons that are meant to be used.
    pub(super) fn icons(&self) -> impl Iterator<Item = &str> {
        let shown = self.file.icons.iter().filter(|(_, icon)| !icon.hidden);
        shown.map(|(name, _)| name.as_str())
    }

    /// The icon of a code, or of a name where the set has no codes.
    pub(super) fn icon(&self, code: &str, slug: &str) -> Option<&str> {
        let name = if self.codes.is_empty() {
            slug
        } else {
            self.codes.get(code)?
        };
        let (name, _) = self.file.icons.get_key_value(name)?;
        Some(name)
    }

    /// The drawing of an icon.
    pub(super) fn svg(&self, name: &str) -> Option<String> {
        let (file, icon) = (&self.file, self.file.icons.get(name)?);
        let side = |own: Option<f64>, all: Option<f64>| own.or(all).unwrap_or(DEFAULT_SIDE);
        let [left, top] = [icon.left.unwrap_or(file.left), icon.top.unwrap_or(file.top)];
        let width = side(icon.width, file.width);
        let height = side(icon.height, file.height);
        Some(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" \
             xmlns:xlink=\"http://www.w3.org/1999/xlink\" width=\"{width}\" height=\"{height}\" \
             viewBox=\"{left} {top} {width} {height}\">{}</svg>",
            icon.body
        ))
    }
}

/// Directories of sets below `dir`, in order of their paths.
pub(super) fn find(dir: &Path) -> Result<Vec<PathBuf>, DataError> {
    let mut found = Vec::new();
    let mut level = vec![dir.to_owned()];
    for _ in 0..=DEPTH {
        let mut next = Vec::new();
        for dir in level {
            if dir.join("icons.json").is_file() {
                found.push(dir);
                continue;
            }
            let io = |source| DataError::Io {
                path: dir.clone(),
                source,
            };
            for entry in fs::read_dir(&dir).map_err(io)? {
                let path = entry.map_err(io)?.path();
                if path.is_dir() {
                    next.push(path);
                }
            }
        }
        level = next;
    }
    found.sort();
    Ok(found)
}

/// Reads a file of JSON.
pub(super) fn json<T: DeserializeOwned>(path: &Path) -> Result<T, DataError> {
    let text = fs::read(path).map_err(|source| DataError::Io {
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_slice(&text).map_err(|error| DataError::Icons {
        path: path.to_owned(),
        problem: error.to_string(),
    })
}
