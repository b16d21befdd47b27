//! Position embeddings of patches, interpolated from a square table that is stretched over the
//! image.

use burn::tensor::{DType, Device, Int, Tensor, TensorData};

use crate::qwen2_5_vl::TokenGrid;

/// The four table entries around each patch, and their weights.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Corners {
    /// Entries `[4][patches]`.
    entries: [Vec<i64>; 4],
    /// Weights `[4][patches]`, which add up to one for each patch.
    shares: [Vec<f32>; 4],
}

/// A position between two lines of the table.
#[derive(Clone, Copy)]
struct Between {
    line: usize,
    next: usize,
    share_of_next: f32,
}

impl Corners {
    /// Computes the corners of all patches of `grid`, in the order of the image processor, in a
    /// table of `side` times `side` entries.
    pub(super) fn new(grid: TokenGrid, merge_size: usize, side: usize) -> Self {
        let rows = stretched(grid.rows * merge_size, side);
        let columns = stretched(grid.columns * merge_size, side);
        let mut corners = Self {
            entries: Default::default(),
            shares: Default::default(),
        };
        for [row, column] in grid.patches(merge_size) {
            let (row, column) = (rows[row], columns[column]);
            let (below, right) = (row.share_of_next, column.share_of_next);
            let four = [
                (row.line, column.line, (1.0 - below) * (1.0 - right)),
                (row.line, column.next, (1.0 - below) * right),
                (row.next, column.line, below * (1.0 - right)),
                (row.next, column.next, below * right),
            ];
            for (corner, (row, column, share)) in four.into_iter().enumerate() {
                let entry = i64::try_from(row * side + column).unwrap_or(i64::MAX);
                corners.entries[corner].push(entry);
                corners.shares[corner].push(share);
            }
        }
        corners
    }

    /// Returns the interpolated embeddings.
    ///
    /// # Shapes
    /// `table` `[side * side, hidden]`, result `[patches, hidden]`.
    pub(super) fn mix(&self, table: &Tensor<2>, (device, dtype): (&Device, DType)) -> Tensor<2> {
        let corners = self.entries.iter().zip(&self.shares);
        let parts = corners.map(|(entries, shares)| {
            let len = entries.len();
            let entries = TensorData::new(entries.clone(), [len]);
            let entries = Tensor::<1, Int>::from_data(entries, device);
            let shares = TensorData::new(shares.clone(), [len, 1]);
            let shares = Tensor::<2>::from_data(shares, (device, DType::F32));
            table.clone().select(0, entries) * Tensor::<2>::cast(shares, dtype)
        });
        let sum = parts.reduce(|sum, part| sum + part);
        match sum {
            Some(sum) => sum,
            None => unreachable!("a patch has four corners"),
        }
    }
}

/// Returns the positions of `count` lines spread evenly from the first line of the table to the
/// last, in f32 like the published model.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "places lie in a table of few lines"
)]
fn stretched(count: usize, side: usize) -> Vec<Between> {
    let end = side.saturating_sub(1);
    let step = end as f32 / count.saturating_sub(1).max(1) as f32;
    let place = |idx: usize| match idx < count / 2 || count == 1 {
        true => step * idx as f32,
        // Count from the end, so that the last position is exactly the last line.
        false => end as f32 - step * (count - 1 - idx) as f32,
    };
    let between = |idx: usize| {
        let place = place(idx);
        let line = (place as usize).min(end);
        Between {
            line,
            next: (line + 1).min(end),
            share_of_next: place - line as f32,
        }
    };
    (0..count).map(between).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_as_large_as_the_table_takes_it_as_it_is() {
        let grid = TokenGrid {
            frames: 1,
            rows: 2,
            columns: 2,
        };
        let corners = Corners::new(grid, 2, 4);
        assert_eq!(corners.entries[0][..6], [0, 1, 4, 5, 2, 3]);
        assert!(
            corners.shares[0]
                .iter()
                .all(|share| (share - 1.0).abs() < 1e-6)
        );
    }

    #[test]
    fn lines_are_spread_from_end_to_end() {
        let lines = |count, side| -> Vec<f32> {
            let lines = stretched(count, side).into_iter();
            lines.map(|b| b.line as f32 + b.share_of_next).collect()
        };
        assert_eq!(lines(3, 8), [0.0, 3.5, 7.0]);
        assert_eq!(lines(1, 8), [0.0]);
        assert_eq!(lines(2, 1), [0.0, 0.0]);
        let many = lines(1000, 48);
        assert_eq!((many[0], many[999]), (0.0, 47.0));
        assert!(many.is_sorted());
    }
}
