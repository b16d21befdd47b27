//! Long chores in steps, each a process of a program that users have, too. A step that was done is
//! not done again unless something that it depends on has changed; one that was cut off goes on,
//! because the programs do.

mod run;
mod state;

use std::ffi::OsString;
use std::path::PathBuf;

pub(crate) use run::{Done, Runner};
pub(crate) use state::{KeyHasher, State};

/// A step.
#[derive(Debug)]
pub(crate) struct Step {
    /// Name of its marker.
    pub(crate) name: String,
    /// Hash of everything that the outcome depends on.
    pub(crate) key: String,
    /// Samples or prompts that go through a model, for estimates of time.
    pub(crate) units: u64,
    /// Directory that the step writes.
    pub(crate) output: PathBuf,
    /// What to do.
    pub(crate) work: Work,
}

/// What a step does.
#[derive(Debug)]
pub(crate) enum Work {
    /// Runs a program.
    Program {
        program: &'static str,
        arguments: Vec<OsString>,
        /// A file that the program adds lines to, and how many there will be.
        lines: Option<(PathBuf, u64)>,
    },
    /// Measures the cells of a draft.
    Sweep {
        /// Directory of the draft that was trained, and where it is copied to.
        draft: (PathBuf, PathBuf),
        /// The sweep as TOML.
        text: String,
    },
}

/// Flags of a program.
#[derive(Debug, Default)]
pub(crate) struct ProgramFlags(pub(crate) Vec<OsString>);

impl ProgramFlags {
    /// Flags with a value each.
    pub(crate) fn new(flags: &[(&str, &dyn AsRef<std::ffi::OsStr>)]) -> Self {
        let pairs = flags.iter();
        let words = pairs.flat_map(|(flag, value)| [flag.into(), value.as_ref().to_owned()]);
        Self(words.collect())
    }

    /// And a flag with each of some values.
    pub(crate) fn with<'a>(
        mut self,
        flag: &str,
        values: impl IntoIterator<Item = &'a String>,
    ) -> Self {
        for value in values {
            self.0.extend([flag.into(), value.into()]);
        }
        self
    }

    /// And flags with a value each.
    pub(crate) fn then(mut self, flags: &[(&str, &std::ffi::OsStr)]) -> Self {
        let words = flags.iter();
        let words = words.flat_map(|(flag, value)| [flag.into(), (*value).to_owned()]);
        self.0.extend(words);
        self
    }

    /// And a word before all.
    pub(crate) fn first(mut self, word: &str) -> Self {
        self.0.insert(0, word.into());
        self
    }

    /// And a word behind all.
    pub(crate) fn and(mut self, word: &str) -> Self {
        self.0.push(word.into());
        self
    }
}
