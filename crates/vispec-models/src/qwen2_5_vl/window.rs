//! Which patches of an image attend to each other, and in which order they are kept for it.

/// The patches of one image, counted in image tokens (squares of patches that are merged).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TokenGrid {
    pub(super) frames: usize,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

/// Groups of `len` consecutive patches each, one behind the other; every patch attends to its own
/// group only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) start: usize,
    pub(super) groups: usize,
    pub(super) len: usize,
}

impl Run {
    /// Behind the last patch.
    pub(super) fn end(&self) -> usize {
        self.start + self.groups * self.len
    }
}

/// An order of the image tokens in which each window is a consecutive range.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct WindowOrder {
    /// For each place in window order, the place in the order of the image processor.
    pub(super) from_processor: Vec<usize>,
    /// The windows in patches. Those at the right and lower edges can be smaller than the others;
    /// neighbours of the same size share an entry, so that they are computed together.
    pub(super) runs: Vec<Run>,
}

impl WindowOrder {
    /// Windows of at most `side` times `side` tokens, from left to right and from top to bottom;
    /// within a window likewise.
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

    /// For each place in the order of the image processor, the place in window order.
    pub(super) fn to_processor(&self) -> Vec<usize> {
        let mut inverse = vec![0; self.from_processor.len()];
        for (place, &origin) in self.from_processor.iter().enumerate() {
            inverse[origin] = place;
        }
        inverse
    }
}

/// Adds a group of `len` patches behind the last one.
fn push_group(runs: &mut Vec<Run>, len: usize) {
    let start = match runs.last_mut() {
        Some(last) if last.len == len => {
            last.groups += 1;
            return;
        }
        Some(last) => last.end(),
        None => 0,
    };
    runs.push(Run {
        start,
        groups: 1,
        len,
    });
}

/// Angles of the two-dimensional rotary embedding, `[patches, head_dim / 2]` in row-major order and
/// in the order of the image processor: half of them for the patch's row, half for its column.
///
/// The patches of a token follow each other, so tokens are walked through first, then the patches
/// within.
pub(super) fn rotary_angles(grid: TokenGrid, merge_size: usize, head_dim: usize) -> Vec<f32> {
    let frequencies = frequencies(head_dim / 4);
    let mut angles = Vec::new();
    for _ in 0..grid.frames {
        for token_row in 0..grid.rows {
            for token_column in 0..grid.columns {
                for within in 0..merge_size * merge_size {
                    let row = token_row * merge_size + within / merge_size;
                    let column = token_column * merge_size + within % merge_size;
                    for place in [row, column] {
                        #[expect(clippy::cast_precision_loss, reason = "far below 2^24")]
                        angles.extend(frequencies.iter().map(|f| place as f32 * f));
                    }
                }
            }
        }
    }
    angles
}

/// `10000^(-j / count)` for `j` from 0 up; the base is the same in all published models.
fn frequencies(count: usize) -> Vec<f32> {
    (0..count)
        .map(|j| {
            #[expect(clippy::cast_precision_loss, reason = "head sizes are small")]
            let exponent = j as f64 / count as f64;
            #[expect(
                clippy::cast_possible_truncation,
                reason = "rounding to f32 is the point"
            )]
            let value = (1.0 / 10_000f64.powf(exponent)) as f32;
            value
        })
        .collect()
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
                Run {
                    start: 0,
                    groups: 2,
                    len: 16
                },
                Run {
                    start: 32,
                    groups: 3,
                    len: 8
                },
                Run {
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
            [Run {
                start: 0,
                groups: 2,
                len: 24
            }]
        );
    }
}
