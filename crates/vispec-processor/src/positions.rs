//! Rotary position ids of a prompt.

use std::ops::Range;

/// Position ids of all tokens of a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Positions {
    /// One running index, `[seq]`: LLaVA, and every model with plain rotary embedding.
    Sequential(Vec<u32>),
    /// Three indices per token (M-RoPE), each `[seq]`: Qwen.
    Multimodal {
        /// Frame.
        temporal: Vec<u32>,
        /// Row.
        height: Vec<u32>,
        /// Column.
        width: Vec<u32>,
    },
}

impl Positions {
    /// Returns the number of tokens.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Sequential(index) => index.len(),
            Self::Multimodal { temporal, .. } => temporal.len(),
        }
    }

    /// Returns whether there are no tokens.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the temporal, height and width indices; three times the same if there is only one.
    #[must_use]
    pub fn axes(&self) -> [&[u32]; 3] {
        match self {
            Self::Sequential(index) => [index, index, index],
            Self::Multimodal {
                temporal,
                height,
                width,
            } => [temporal, height, width],
        }
    }

    /// Returns `0, 1, 2, ...` for `len` tokens.
    pub(crate) fn sequential(len: usize) -> Self {
        Self::Sequential((0..len).map(position).collect())
    }
}

/// The tokens of one image or video part: their range and the grid that they form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageSpan {
    /// Token range in the prompt.
    pub(crate) run: Range<usize>,
    /// Frames, rows and columns in tokens, that is, after patches are merged.
    pub(crate) token_grid: [usize; 3],
    /// Temporal position of each frame, relative to the first; empty for a still image.
    pub(crate) frame_positions: Vec<usize>,
}

/// Computes the M-RoPE ids of a prompt of `len` tokens, and the rope delta (largest id + 1 -
/// `len`).
///
/// Text counts up on all three axes alike. An image starts where the text before it ended and uses
/// its rows and columns as ids. Its temporal id does not advance, since a still image has no
/// duration; that of a video follows `frame_positions`. Text after it continues from the largest id
/// so far + 1.
pub(crate) fn multimodal_positions(len: usize, spans: &[ImageSpan]) -> (Positions, i64) {
    let mut axes: [Vec<u32>; 3] = std::array::from_fn(|_| Vec::with_capacity(len));
    let mut next = 0;
    let mut done = 0;
    let push_text = |axes: &mut [Vec<u32>; 3], n_text: usize, next: &mut usize| {
        for axis in axes {
            axis.extend((*next..*next + n_text).map(position));
        }
        *next += n_text;
    };
    for span in spans {
        push_text(&mut axes, span.run.start - done, &mut next);
        let [frames, rows, columns] = span.token_grid;
        let mut last = 0;
        for frame in 0..frames {
            last = span.frame_positions.get(frame).copied().unwrap_or(0);
            for row in 0..rows {
                for column in 0..columns {
                    axes[0].push(position(next + last));
                    axes[1].push(position(next + row));
                    axes[2].push(position(next + column));
                }
            }
        }
        next += rows.max(columns).max(last + 1);
        done = span.run.end;
    }
    push_text(&mut axes, len - done, &mut next);
    let [temporal, height, width] = axes;
    let delta = signed(next) - signed(len);
    (
        Positions::Multimodal {
            temporal,
            height,
            width,
        },
        delta,
    )
}

fn position(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn signed(index: usize) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_goes_on_after_the_longer_side_of_an_image() {
        let spans = [ImageSpan {
            run: 2..8,
            token_grid: [1, 2, 3],
            frame_positions: Vec::new(),
        }];
        let (positions, delta) = multimodal_positions(9, &spans);
        assert_eq!(
            positions.axes(),
            [
                &[0, 1, 2, 2, 2, 2, 2, 2, 5][..],
                &[0, 1, 2, 2, 2, 3, 3, 3, 5][..],
                &[0, 1, 2, 3, 4, 2, 3, 4, 5][..]
            ]
        );
        assert_eq!(delta, -3);
    }

    #[test]
    fn text_goes_on_after_a_long_video() {
        let spans = [ImageSpan {
            run: 1..5,
            token_grid: [2, 1, 2],
            frame_positions: vec![0, 6],
        }];
        let (positions, delta) = multimodal_positions(6, &spans);
        assert_eq!(
            positions.axes(),
            [
                &[0, 1, 1, 7, 7, 8][..],
                &[0, 1, 1, 1, 1, 8][..],
                &[0, 1, 2, 1, 2, 8][..]
            ]
        );
        assert_eq!(delta, 3);
    }

    #[test]
    fn adjacent_images_follow_each_other() {
        let spans = [
            ImageSpan {
                run: 0..4,
                token_grid: [1, 2, 2],
                frame_positions: Vec::new(),
            },
            ImageSpan {
                run: 4..5,
                token_grid: [1, 1, 1],
                frame_positions: Vec::new(),
            },
        ];
        let (positions, delta) = multimodal_positions(5, &spans);
        assert_eq!(positions.axes()[1], &[0, 0, 1, 1, 2]);
        assert_eq!(delta, -2);
    }
}
