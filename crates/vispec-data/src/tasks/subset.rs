//! The number and order of the rows that a task selects.

use std::fmt;

use serde::Deserialize;

use crate::order::{numpy_permutation, python_sample};

/// The rows that a task selects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Subset {
    /// All rows in the order of the files.
    #[default]
    All,
    /// The first rows after `datasets.Dataset.shuffle(seed)`.
    Shuffle { seed: u64, take: usize },
    /// `random.seed(seed); random.sample(rows, take)` of Python.
    PythonSample { seed: u64, take: usize },
}

impl Subset {
    /// Returns the number of rows, if not all.
    pub(super) fn take(self) -> Option<usize> {
        match self {
            Self::All => None,
            Self::Shuffle { take, .. } | Self::PythonSample { take, .. } => Some(take),
        }
    }

    /// Returns the selected indices among `n` rows.
    pub(super) fn places(self, n: usize) -> Vec<usize> {
        match self {
            Self::All => (0..n).collect(),
            Self::Shuffle { seed, take } => {
                let mut places = numpy_permutation(seed, n);
                places.truncate(take);
                places
            }
            Self::PythonSample { seed, take } => python_sample(seed, n, take),
        }
    }
}

impl fmt::Display for Subset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Shuffle { seed, take } => write!(f, "{take}, shuffled with seed {seed}"),
            Self::PythonSample { seed, take } => {
                write!(f, "{take}, Python's sample with seed {seed}")
            }
        }
    }
}
