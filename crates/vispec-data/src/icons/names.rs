//! Names and keywords of things.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::DataError;

/// A group of things, as Unicode divides emoji. Its components, symbols and flags show no things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ThingGroup {
    /// Faces and other smileys.
    Smileys,
    /// People, gestures and parts of the body.
    People,
    /// Animals and plants.
    Nature,
    /// Food, drink and dishes.
    Food,
    /// Places, buildings, vehicles, clocks and the sky.
    Travel,
    /// Events, sports, games and arts.
    Activities,
    /// Clothing, tools, furniture and other objects.
    Objects,
}

impl ThingGroup {
    /// All groups.
    pub const ALL: [Self; 7] = [
        Self::Smileys,
        Self::People,
        Self::Nature,
        Self::Food,
        Self::Travel,
        Self::Activities,
        Self::Objects,
    ];

    /// Returns the number of the group in emojibase's data.
    fn number(self) -> u32 {
        match self {
            Self::Smileys => 0,
            Self::People => 1,
            Self::Nature => 3,
            Self::Food => 4,
            Self::Travel => 5,
            Self::Activities => 6,
            Self::Objects => 7,
        }
    }
}

/// A thing that pictures can show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thing {
    /// Its English name, such as `red apple`.
    pub name: String,
    /// Other English words for it, in file order.
    pub keywords: Vec<String>,
    /// Its code points in lower-case hexadecimal, joined with `-`, without variation selectors.
    pub code: String,
}

/// A row of `data.json`.
#[derive(Deserialize)]
struct Row {
    label: String,
    hexcode: String,
    #[serde(default)]
    tags: Vec<String>,
    group: Option<u32>,
}

/// Reads the things of `groups` in `en/data.json` of emojibase-data.
pub(super) fn read(dir: &Path, groups: &[ThingGroup]) -> Result<Vec<Thing>, DataError> {
    let path = find(dir).ok_or_else(|| DataError::Icons {
        path: dir.to_owned(),
        problem: "no names found: expected emojibase-data/en/data.json, which `npm install \
                  emojibase-data` fetches"
            .to_owned(),
    })?;
    let rows: Vec<Row> = super::json::read(&path)?;
    let is_thing = |row: &Row| groups.iter().any(|group| row.group == Some(group.number()));
    let things = rows.into_iter().filter(is_thing);
    let mut things: Vec<Thing> = things
        .map(|row| Thing {
            code: plain_code(&row.hexcode),
            name: row.label.replace('’', "'"),
            keywords: row.tags,
        })
        .collect();
    things.sort_by(|one, other| one.code.cmp(&other.code));
    things.dedup_by(|one, other| one.code == other.code);
    Ok(things)
}

fn find(dir: &Path) -> Option<PathBuf> {
    let below = |dir: &Path| dir.join("en/data.json");
    [below(&dir.join("emojibase-data")), below(dir)]
        .into_iter()
        .find(|path| path.is_file())
}

/// Returns the code points in lower case, without the variation selector for colour.
pub(super) fn plain_code(code: &str) -> String {
    let code = code.to_ascii_lowercase();
    let points = code.split('-').filter(|&point| point != "fe0f");
    points.collect::<Vec<_>>().join("-")
}

/// Converts a name to the form of icon names: lower-case words joined with `-`.
pub(super) fn slug(name: &str) -> String {
    let lower = name.to_lowercase();
    let words = lower
        .split(|letter: char| !letter.is_alphanumeric())
        .filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_names_are_spelled_as_in_sets() {
        assert_eq!(plain_code("1F575-FE0F-200D-2640-FE0F"), "1f575-200d-2640");
        assert_eq!(slug("Face with Rolling Eyes"), "face-with-rolling-eyes");
        assert_eq!(slug("man’s shoe"), "man-s-shoe");
    }
}
