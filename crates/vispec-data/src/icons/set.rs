//! A set of icons.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::json;
use super::names::plain_code;
use crate::error::DataError;

/// Maximum depth of sets below the given directory: `node_modules/@iconify-json/noto`.
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
    /// Icon names by code point; empty if the set lists none.
    codes: BTreeMap<String, String>,
}

/// Default side length of icons, as in Iconify.
const DEFAULT_SIDE: f64 = 16.0;

impl IconSet {
    pub(super) fn read(dir: &Path) -> Result<Self, DataError> {
        let file: File = json::read(&dir.join("icons.json"))?;
        let info = dir.join("info.json");
        let license = if info.is_file() {
            json::read::<Info>(&info)?
                .license
                .map(|license| license.title)
        } else {
            None
        };
        let chars = dir.join("chars.json");
        let codes: BTreeMap<String, String> = if chars.is_file() {
            json::read(&chars)?
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

    /// Returns the names of all icons that are not hidden.
    pub(super) fn icons(&self) -> impl Iterator<Item = &str> {
        let shown = self.file.icons.iter().filter(|(_, icon)| !icon.hidden);
        shown.map(|(name, _)| name.as_str())
    }

    /// Returns the icon of a code, or of a name if the set has no codes.
    pub(super) fn icon(&self, code: &str, slug: &str) -> Option<&str> {
        let name = if self.codes.is_empty() {
            slug
        } else {
            self.codes.get(code)?
        };
        let (name, _) = self.file.icons.get_key_value(name)?;
        Some(name)
    }

    /// Returns the drawing of an icon as SVG.
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

/// Returns the directories of sets below `dir`, ordered by path.
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
