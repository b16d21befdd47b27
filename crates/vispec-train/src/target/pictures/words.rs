//! The words that classify pictures: names of things, and keywords that several things share.

use std::collections::BTreeMap;

use vispec_data::icons::Thing;

/// Share of the name in the target distribution; the rest is divided among keywords.
const NAME_SHARE: f32 = 0.5;

/// Names in the order of the things, followed by keywords.
#[derive(Debug, Clone)]
pub struct Words {
    /// All words.
    pub words: Vec<String>,
    /// Keywords of each thing, as indices into `words`.
    pub keywords: Vec<Vec<usize>>,
}

impl Words {
    /// Collects the names of `things`, and the keywords that at least `enough` things have.
    #[must_use]
    pub fn of(things: &[Thing], enough: usize) -> Self {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for keyword in things.iter().flat_map(|thing| &thing.keywords) {
            *counts.entry(keyword).or_default() += 1;
        }
        let shared = counts.into_iter().filter(|(_, count)| *count >= enough);
        let places: BTreeMap<&str, usize> = shared
            .enumerate()
            .map(|(number, (keyword, _))| (keyword, things.len() + number))
            .collect();
        let keywords = things.iter().map(|thing| {
            let keywords = thing.keywords.iter();
            keywords
                .filter_map(|keyword| places.get(keyword.as_str()).copied())
                .collect()
        });
        let keywords = keywords.collect();
        let names = things.iter().map(|thing| thing.name.clone());
        Self {
            words: names
                .chain(places.keys().map(|&word| word.to_owned()))
                .collect(),
            keywords,
        }
    }

    /// Returns the target distribution of words for a picture of `thing`: indices of words, with
    /// shares that add up to 1.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "few keywords")]
    pub fn shares(&self, thing: usize) -> Vec<(usize, f32)> {
        let keywords = &self.keywords[thing];
        if keywords.is_empty() {
            return vec![(thing, 1.0)];
        }
        let each = (1.0 - NAME_SHARE) / keywords.len() as f32;
        let keywords = keywords.iter().map(|&word| (word, each));
        std::iter::once((thing, NAME_SHARE))
            .chain(keywords)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thing(name: &str, keywords: &[&str]) -> Thing {
        Thing {
            name: name.to_owned(),
            keywords: keywords.iter().map(|&word| word.to_owned()).collect(),
            code: String::new(),
        }
    }

    #[test]
    fn keywords_of_one_thing_are_no_words() {
        let things = [
            thing("cat", &["animal", "pet", "meow"]),
            thing("dog", &["animal", "pet"]),
            thing("kettle", &["tea"]),
        ];
        let words = Words::of(&things, 2);
        assert_eq!(words.words, ["cat", "dog", "kettle", "animal", "pet"]);
        assert_eq!(words.shares(0), [(0, 0.5), (3, 0.25), (4, 0.25)]);
        assert_eq!(words.shares(2), [(2, 1.0)]);
    }
}
