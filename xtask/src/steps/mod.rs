//! Long tasks in steps, each a process of a program that users have, too. A finished step is not
//! repeated unless one of its inputs changes; an interrupted one is resumed, because the programs
//! resume their work.

mod run;
mod state;

use std::ffi::OsString;
use std::path::PathBuf;

pub(crate) use run::{Done, Runner};
pub(crate) use state::{KeyHasher, State};

/// A step.
#[derive(Debug)]
pub(crate) struct Step {
    /// Name of the step and of its marker.
    pub(crate) name: String,
    /// Hash of everything that the output depends on.
    pub(crate) key: String,
    /// Number of samples or prompts that pass through a model, for time estimates.
    pub(crate) units: u64,
    /// Directory that the step writes.
    pub(crate) output: PathBuf,
    /// The work to do.
    pub(crate) work: Work,
}

/// The work of a step.
#[derive(Debug)]
pub(crate) enum Work {
    /// Runs a program.
    Program {
        program: &'static str,
        arguments: Vec<OsString>,
        /// A file that the program appends lines to, and their final number.
        lines: Option<(PathBuf, u64)>,
    },
    /// Measures the cells of a draft.
    Sweep {
        /// Directory of the trained draft, and the directory that it is copied to.
        draft: (PathBuf, PathBuf),
        /// The sweep as TOML.
        text: String,
    },
}

/// Flags of a program.
#[derive(Debug, Default)]
pub(crate) struct ProgramFlags(pub(crate) Vec<OsString>);

impl ProgramFlags {
    /// Creates flags with one value each.
    pub(crate) fn new(flags: &[(&str, &dyn AsRef<std::ffi::OsStr>)]) -> Self {
        let pairs = flags.iter();
        let words = pairs.flat_map(|(flag, value)| [flag.into(), value.as_ref().to_owned()]);
        Self(words.collect())
    }

    /// Appends a flag once for each of some values.
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

    /// Appends flags with one value each.
    pub(crate) fn then(mut self, flags: &[(&str, &std::ffi::OsStr)]) -> Self {
        let words = flags.iter();
        let words = words.flat_map(|(flag, value)| [flag.into(), (*value).to_owned()]);
        self.0.extend(words);
        self
    }

    /// Inserts a word at the start.
    pub(crate) fn first(mut self, word: &str) -> Self {
        self.0.insert(0, word.into());
        self
    }

    /// Appends a word.
    pub(crate) fn and(mut self, word: &str) -> Self {
        self.0.push(word.into());
        self
    }
}
