//! Division of positions among machines.

use std::str::FromStr;

use super::error::CaptureError;
use super::positions::PositionRange;

/// One of several equal shares of a range; `1/8` is the first of eight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Index of the share, from 0.
    index: usize,
    count: usize,
}

impl Share {
    /// The whole range.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// Returns this share of a range. Shares are contiguous; if the range does not divide evenly,
    /// the first shares get one more position, as in upstream.
    #[must_use]
    pub fn of(&self, range: PositionRange) -> PositionRange {
        let (size, rest) = (range.len() / self.count, range.len() % self.count);
        let start_of = |index: usize| range.start + index * size + index.min(rest);
        PositionRange {
            start: start_of(self.index),
            end: start_of(self.index + 1),
        }
    }
}

impl FromStr for Share {
    type Err = CaptureError;

    fn from_str(text: &str) -> Result<Self, CaptureError> {
        let parsed = text.split_once('/').and_then(|(index, count)| {
            let (index, count): (usize, usize) = (index.parse().ok()?, count.parse().ok()?);
            let index = index.checked_sub(1)?;
            (index < count).then_some(Self { index, count })
        });
        parsed.ok_or_else(|| CaptureError::ShareSyntax {
            found: text.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_contiguous_and_cover_the_range() {
        for (start, end, count) in [(0, 10, 3), (5, 6, 4), (7, 7, 2), (0, 68_000, 8)] {
            let whole = PositionRange { start, end };
            let mut next = start;
            for index in 1..=count {
                let share: Share = format!("{index}/{count}").parse().unwrap();
                let range = share.of(whole);
                assert_eq!(range.start, next);
                assert!(range.len() <= whole.len().div_ceil(count));
                next = range.end;
            }
            assert_eq!(next, end);
        }
    }

    #[test]
    fn wrong_shares_are_refused() {
        for text in ["", "1", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b"] {
            let error = text.parse::<Share>().unwrap_err();
            assert!(matches!(error, CaptureError::ShareSyntax { .. }), "{text}");
        }
    }
}
