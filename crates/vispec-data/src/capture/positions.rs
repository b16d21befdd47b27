//! Ranges of positions.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Positions `start..end` of the shuffled order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PositionRange {
    /// First position.
    pub start: usize,
    /// Position after the last.
    pub end: usize,
}

impl PositionRange {
    /// Returns the number of positions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.end.saturating_sub(self.start)
    }

    /// Returns `true` if there are no positions.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns whether a position is in the range.
    pub(crate) fn contains(&self, position: usize) -> bool {
        (self.start..self.end).contains(&position)
    }

    /// Splits the range into pieces of `size`; the last piece may be shorter.
    pub(super) fn pieces(self, size: usize) -> impl Iterator<Item = Self> {
        let starts = (self.start..self.end).step_by(size.max(1));
        starts.map(move |start| Self {
            start,
            end: self.end.min(start + size),
        })
    }
}

impl fmt::Display for PositionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}
