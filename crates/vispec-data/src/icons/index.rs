//! The index of usable pictures.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::look::{self, Look};
use super::names::{self, Thing, ThingGroup, slug};
use super::set::{self, IconSet};
use crate::error::DataError;

/// Selection of the icon sets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IconSettings {
    /// Names of the sets for training, such as `noto`.
    pub sets: Vec<String>,
    /// Names of the sets whose styles are never trained on, only tested.
    pub held_out: Vec<String>,
    /// Groups of things that are shown; all by default.
    #[serde(default = "all_groups")]
    pub groups: Vec<ThingGroup>,
}

fn all_groups() -> Vec<ThingGroup> {
    ThingGroup::ALL.to_vec()
}

/// One picture.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PictureOf {
    /// Name of its set.
    pub set: String,
    /// Name of its icon in the set.
    pub icon: String,
    /// The thing it shows, an index into [`IconIndex::things`].
    pub thing: usize,
}

/// How much of a set is used, and what is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Name of its licence.
    pub license: String,
    /// Number of pictures that are used.
    pub pictures: usize,
    /// Number of icons that match no thing: variants, flags, symbols, other groups.
    pub unnamed: usize,
    /// Icons that are not valid SVG, or draw nothing.
    pub broken: Vec<String>,
}

/// All usable pictures, and what is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IconIndex {
    /// The things that pictures show; each has pictures in at least two training sets and one
    /// held-out set.
    pub things: Vec<Thing>,
    /// Pictures of the training sets.
    pub taught: Vec<PictureOf>,
    /// Pictures of held-out sets.
    pub held_out: Vec<PictureOf>,
    /// Statistics of each set.
    pub sets: BTreeMap<String, Left>,
}

/// Side length in pixels of trial drawings.
const TRIED_SIDE: u32 = 16;

impl IconIndex {
    /// Reads all sets below `dir` that `settings` names, and draws each icon once to test it. Calls
    /// `progress` with the number of icons tested and the total.
    ///
    /// # Errors
    /// [`DataError::Io`] if a file cannot be read; [`DataError::Icons`] if a set is missing or
    /// damaged or has no licence, if there are no names, or if no thing is left.
    pub fn build(
        dir: &Path,
        settings: &IconSettings,
        mut progress: impl FnMut(usize, usize),
    ) -> Result<Self, DataError> {
        let names = names::read(dir, &settings.groups)?;
        let found = read_sets(dir, settings)?;
        let total = found.values().map(|set| set.icons().count()).sum();
        let mut done = 0;
        let mut sets = BTreeMap::new();
        let mut pictures = BTreeMap::new();
        for (name, set) in &found {
            let (left, of_set) = tried(set, &names, || {
                done += 1;
                progress(done, total);
            });
            sets.insert(name.clone(), left);
            pictures.insert(name, of_set);
        }
        let of = |names: &[String]| -> Vec<PictureOf> {
            let pictures = names.iter().filter_map(|name| pictures.get(name));
            pictures.flatten().cloned().collect()
        };
        let (taught, held_out) = (of(&settings.sets), of(&settings.held_out));
        let kept = kept_things(&taught, &held_out);
        let renumbered = |pictures: Vec<PictureOf>| -> Vec<PictureOf> {
            let pictures = pictures.into_iter().filter_map(|picture| {
                let thing = *kept.get(&picture.thing)?;
                Some(PictureOf { thing, ..picture })
            });
            pictures.collect()
        };
        let index = Self {
            things: kept.keys().map(|&thing| names[thing].clone()).collect(),
            taught: renumbered(taught),
            held_out: renumbered(held_out),
            sets,
        };
        if index.things.is_empty() {
            return Err(DataError::Icons {
                path: dir.to_owned(),
                problem: "no thing has pictures in two training sets and one held-out set"
                    .to_owned(),
            });
        }
        Ok(index)
    }
}

/// Reads the sets that `settings` names, and checks that each has a licence.
fn read_sets(dir: &Path, settings: &IconSettings) -> Result<BTreeMap<String, IconSet>, DataError> {
    let fault = |problem: String| DataError::Icons {
        path: dir.to_owned(),
        problem,
    };
    let mut there = BTreeMap::new();
    for path in set::find(dir)? {
        let set = IconSet::read(&path)?;
        there.insert(set.name().to_owned(), set);
    }
    let names: Vec<String> = there.keys().cloned().collect();
    let mut found = BTreeMap::new();
    for name in settings.sets.iter().chain(&settings.held_out) {
        let set = there.remove(name).ok_or_else(|| {
            let names = match names.is_empty() {
                true => "none".to_owned(),
                false => names.join(", "),
            };
            fault(format!(
                "no set {name}, which `npm install @iconify-json/{name}` fetches, or it is \
                 named twice; found: {names}"
            ))
        })?;
        if set.license().is_none() {
            let problem = format!("the set {name} has no licence in its info.json");
            return Err(fault(problem));
        }
        found.insert(name.clone(), set);
    }
    Ok(found)
}

/// Returns the statistics of a set and its usable pictures.
fn tried(set: &IconSet, names: &[Thing], mut done: impl FnMut()) -> (Left, Vec<PictureOf>) {
    let mut left = Left {
        license: set.license().unwrap_or_default().to_owned(),
        ..Left::default()
    };
    let of_thing =
        |(thing, named): (usize, &Thing)| Some((set.icon(&named.code, &slug(&named.name))?, thing));
    let things: BTreeMap<&str, usize> = names.iter().enumerate().filter_map(of_thing).collect();
    let mut pictures = Vec::new();
    for icon in set.icons() {
        done();
        let Some(&thing) = things.get(icon) else {
            left.unnamed += 1;
            continue;
        };
        let svg = set.svg(icon).unwrap_or_default();
        if look::draw(&svg, &Look::plain(), TRIED_SIDE).is_err() {
            left.broken.push(icon.to_owned());
            continue;
        }
        pictures.push(PictureOf {
            set: set.name().to_owned(),
            icon: icon.to_owned(),
            thing,
        });
    }
    left.pictures = pictures.len();
    (left, pictures)
}

/// Returns the things that have two training pictures and a held-out one, with their new numbers.
fn kept_things(taught: &[PictureOf], held_out: &[PictureOf]) -> BTreeMap<usize, usize> {
    let mut styles: BTreeMap<usize, usize> = BTreeMap::new();
    for picture in taught {
        *styles.entry(picture.thing).or_default() += 1;
    }
    let asked_about: BTreeSet<usize> = held_out.iter().map(|picture| picture.thing).collect();
    styles
        .into_iter()
        .filter(|(thing, styles)| *styles >= 2 && asked_about.contains(thing))
        .enumerate()
        .map(|(number, (thing, _))| (thing, number))
        .collect()
}
