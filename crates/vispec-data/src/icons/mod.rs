//! Pictures of things in the styles of several designers, with names and keywords. Reads icon sets
//! in the format of the packages `@iconify-json/*`, and the English names of `emojibase-data`.
//!
//! [`IconIndex::build`] lists the usable pictures, and counts the unusable ones with reasons;
//! [`Icons`] draws them.

mod index;
mod json;
mod look;
mod names;
mod set;

pub use index::{IconIndex, IconSettings, Left, PictureOf};
pub use look::Look;
pub use names::{Thing, ThingGroup};

use std::collections::BTreeMap;
use std::path::Path;

use vispec_processor::DecodedImage;

use crate::error::DataError;
use set::IconSet;

/// The drawings of an index, held in memory.
#[derive(Debug)]
pub struct Icons {
    sets: BTreeMap<String, IconSet>,
}

impl Icons {
    /// Reads the sets of `index` below `dir`.
    ///
    /// # Errors
    /// Same as [`IconIndex::build`]; [`DataError::Icons`] if a set of the index is missing.
    pub fn open(dir: &Path, index: &IconIndex) -> Result<Self, DataError> {
        let mut sets = BTreeMap::new();
        for path in set::find(dir)? {
            let set = IconSet::read(&path)?;
            if index.sets.contains_key(set.name()) {
                sets.insert(set.name().to_owned(), set);
            }
        }
        let missing = index.sets.keys().find(|&name| !sets.contains_key(name));
        match missing {
            None => Ok(Self { sets }),
            Some(name) => Err(DataError::Icons {
                path: dir.to_owned(),
                problem: format!("the set {name} no longer exists"),
            }),
        }
    }

    /// Draws a picture of `side` × `side` pixels.
    ///
    /// # Errors
    /// [`DataError::Icons`] if the icon does not exist or cannot be drawn.
    pub fn draw(
        &self,
        picture: &PictureOf,
        look: &Look,
        side: u32,
    ) -> Result<DecodedImage, DataError> {
        let svg = self
            .sets
            .get(&picture.set)
            .and_then(|set| set.svg(&picture.icon));
        let drawn = match svg {
            Some(svg) => look::draw(&svg, look, side),
            None => Err("no such icon".to_owned()),
        };
        drawn.map_err(|problem| DataError::Icons {
            path: format!("{}:{}", picture.set, picture.icon).into(),
            problem,
        })
    }

    /// Draws a picture like [`Icons::draw`] and writes it to a file; the extension selects the
    /// format.
    ///
    /// # Errors
    /// Same as [`Icons::draw`]; [`DataError::Icons`] if the file cannot be written.
    pub fn save(
        &self,
        (picture, look, side): (&PictureOf, &Look, u32),
        path: &Path,
    ) -> Result<(), DataError> {
        let drawn = self.draw(picture, look, side)?;
        let saved = image::save_buffer(path, drawn.rgb(), side, side, image::ColorType::Rgb8);
        saved.map_err(|error| DataError::Icons {
            path: path.to_owned(),
            problem: error.to_string(),
        })
    }
}
