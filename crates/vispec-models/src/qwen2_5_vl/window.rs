//! Attention windows: the patches of an image that attend to each other, and their order.

use super::patches::TokenGrid;
use crate::nn::PatchGroups;

/// An order of the image tokens in which each window is a consecutive range.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WindowOrder {
    /// For each index in window order, the index in the order of the image processor.
    pub(super) from_processor: Vec<usize>,
    /// The windows in patches. Windows at the right and lower edges can be smaller than the others.
    /// Neighbours of the same size share an entry, so that they are computed together.
    pub(super) runs: Vec<PatchGroups>,
}

impl WindowOrder {
    /// Creates windows of at most `side` times `side` tokens, from left to right and from top to
    /// bottom. Tokens within a window have the same order.
    pub(super) fn new(grid: TokenGrid, side: usize, patches_per_token: usize) -> Self {
        let mut from_processor = Vec::with_capacity(grid.frames * grid.rows * grid.columns);
        let mut runs = Vec::new();
        for frame in 0..grid.frames {
            for top in (0..grid.rows).step_by(side) {
                for left in (0..grid.columns).step_by(side) {
                    let before = from_processor.len();
                    for row in top..grid.rows.min(top + side) {
                        let line = (frame * grid.rows + row) * grid.columns;
                        from_processor.extend(line + left..line + grid.columns.min(left + side));
                    }
                    let len = (from_processor.len() - before) * patches_per_token;
                    push_group(&mut runs, len);
                }
            }
        }
        Self {
            from_processor,
            runs,
        }
    }

    /// Returns, for each index in the order of the image processor, the index in window order.
    pub(super) fn to_processor(&self) -> Vec<usize> {
        let mut inverse = vec![0; self.from_processor.len()];
        for (place, &origin) in self.from_processor.iter().enumerate() {
            inverse[origin] = place;
        }
        inverse
    }
}

/// Adds a group of `len` patches after the last one.
fn push_group(runs: &mut Vec<PatchGroups>, len: usize) {
    let start = match runs.last_mut() {
        Some(last) if last.len == len => {
            last.groups += 1;
            return;
        }
        Some(last) => last.end(),
        None => 0,
    };
    runs.push(PatchGroups {
        start,
        groups: 1,
        len,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_at_the_edges_are_smaller() {
        let order = WindowOrder::new(
            TokenGrid {
                frames: 1,
                rows: 3,
                columns: 5,
            },
            2,
            4,
        );
        assert_eq!(
            order.from_processor,
            [0, 1, 5, 6, 2, 3, 7, 8, 4, 9, 10, 11, 12, 13, 14]
        );
        assert_eq!(
            order.runs,
            [
                PatchGroups {
                    start: 0,
                    groups: 2,
                    len: 16
                },
                PatchGroups {
                    start: 32,
                    groups: 3,
                    len: 8
                },
                PatchGroups {
                    start: 56,
                    groups: 1,
                    len: 4
                },
            ]
        );
        let inverse = order.to_processor();
        assert!(
            order
                .from_processor
                .iter()
                .enumerate()
                .all(|(i, &p)| inverse[p] == i)
        );
    }

    #[test]
    fn a_window_that_holds_everything_keeps_the_order() {
        let order = WindowOrder::new(
            TokenGrid {
                frames: 2,
                rows: 2,
                columns: 3,
            },
            8,
            4,
        );
        assert_eq!(order.from_processor, (0..12).collect::<Vec<_>>());
        assert_eq!(
            order.runs,
            [PatchGroups {
                start: 0,
                groups: 2,
                len: 24
            }]
        );
    }
}
