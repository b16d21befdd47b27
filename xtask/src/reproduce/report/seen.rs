//! How well a target that learned to see describes pictures.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use vispec_report::tables::Table;

use super::table;

/// The fields of a line of `named-N.jsonl` that are used.
#[derive(Deserialize)]
struct Named {
    seen: Seen,
    picture: String,
    name: String,
    answer: String,
    found: Found,
    by_chance: Found,
    told: Found,
    file: Option<String>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Seen {
    Taught,
    HeldOut,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Found {
    Name,
    Keyword,
    Nothing,
}

/// The fields of the index of pictures that are used.
#[derive(Deserialize)]
struct IndexFile {
    index: Index,
}

#[derive(Deserialize)]
struct Index {
    sets: BTreeMap<String, Set>,
}

#[derive(Deserialize)]
struct Set {
    license: String,
}

/// The answers of a target's checkpoints to pictures.
pub(super) struct Sight {
    target: PathBuf,
    /// Answers by number of image tokens.
    named: BTreeMap<u64, Vec<Named>>,
}

impl Sight {
    /// Reads the results of `make_target` in `target`.
    pub(super) fn read(target: &Path) -> Result<Self> {
        let mut named = BTreeMap::new();
        for entry in fs::read_dir(target).with_context(|| target.display().to_string())? {
            let path = entry?.path();
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            let tokens = file
                .strip_prefix("named-")
                .and_then(|name| name.strip_suffix(".jsonl"));
            let Some(tokens) = tokens.and_then(|tokens| tokens.parse().ok()) else {
                continue;
            };
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let rows: Result<Vec<Named>, _> = text.lines().map(serde_json::from_str).collect();
            named.insert(tokens, rows.with_context(|| path.display().to_string())?);
        }
        Ok(Self {
            target: target.to_owned(),
            named,
        })
    }

    /// Creates the table of how often the target's answers name what a picture shows.
    pub(super) fn table(&self) -> Table {
        let mut table = table(
            (
                "sight",
                "What the target sees",
                "Shares of answers to \"Describe this picture in detail.\" that contain the name of \
                 the thing, the name or a keyword, or, by chance, a word for another picture's \
                 thing. The last column is the attainable maximum: the language model's answers \
                 to a description of the picture in words.",
            ),
            &[
                "pictures",
                "image tokens",
                "number",
                "name",
                "name or keyword",
                "by chance",
                "name, from a description",
            ],
            1,
        );
        for (tokens, named) in &self.named {
            for (seen, kind) in [
                (Seen::Taught, "styles seen in training"),
                (Seen::HeldOut, "a held-out style"),
            ] {
                let of: Vec<&Named> = named.iter().filter(|named| named.seen == seen).collect();
                let share = |has: fn(&&&Named) -> bool| {
                    let has = of.iter().filter(has).count();
                    format!("{:.1} %", 100.0 * has as f64 / of.len().max(1) as f64)
                };
                table.rows.push(vec![
                    kind.to_owned(),
                    tokens.to_string(),
                    of.len().to_string(),
                    share(|named| named.found == Found::Name),
                    share(|named| named.found != Found::Nothing),
                    share(|named| named.by_chance != Found::Nothing),
                    share(|named| named.told == Found::Name),
                ]);
            }
        }
        table
    }

    /// Writes a table of pictures and answers. The pictures are copied to `folder` of `dir`.
    pub(super) fn examples(&self, dir: &Path, folder: &str) -> Result<String> {
        let Some((tokens, named)) = self.named.first_key_value() else {
            return Ok(String::new());
        };
        let to = dir.join(folder);
        fs::create_dir_all(&to).with_context(|| to.display().to_string())?;
        let mut text = format!(
            "\n## Pictures and answers\n\nThe first pictures in the held-out style, with {tokens} \
             image tokens, not selected by the quality of their answers.\n{}\n\n\
             | picture | what it shows | answer |\n|---|---|---|\n",
            self.attribution(named)?
        );
        for named in named {
            let Some(file) = &named.file else {
                continue;
            };
            let from = self.target.join(file);
            let name = from.file_name().unwrap_or_default().to_string_lossy();
            fs::copy(&from, to.join(&*name)).with_context(|| from.display().to_string())?;
            let answer = named.answer.split_whitespace().collect::<Vec<_>>();
            let answer = answer.join(" ").replace('|', "\\|");
            writeln!(
                text,
                "| ![{}]({folder}/{name}) | {} | {answer} |",
                named.picture, named.name
            )?;
        }
        Ok(text)
    }

    /// Returns the credits and licences of the pictures shown.
    fn attribution(&self, named: &[Named]) -> Result<String> {
        let path = self.target.join("pictures.json");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let file: IndexFile =
            serde_json::from_str(&text).with_context(|| path.display().to_string())?;
        let shown = named.iter().filter(|named| named.file.is_some());
        let mut sets: Vec<&str> = shown
            .filter_map(|named| Some(named.picture.split_once(':')?.0))
            .collect();
        sets.sort_unstable();
        sets.dedup();
        let credits = sets.iter().filter_map(|&set| {
            let license = &file.index.sets.get(set)?.license;
            Some(format!("the icon set `{set}` ({license})"))
        });
        let credits: Vec<String> = credits.collect();
        Ok(format!(
            "Pictures: drawn from {}, on other backgrounds.",
            credits.join(", ")
        ))
    }
}
