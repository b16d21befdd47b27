//! Where the rows of a draft are for its rotary embedding.

use burn::tensor::{DType, Device};

use super::reading::PositionsOf;
use crate::nn::{DecoderConfig, MropeLayout, RotaryTable};
use crate::prompt::EncodedPrompt;

/// Rule for the position of a row, which is that of the token whose hidden state it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DraftPositions {
    /// Its place in the sequence.
    Sequential,
    /// The target's position on the axis of time.
    Temporal,
    /// The target's positions on all axes.
    Axes {
        /// Frequencies that turn with time, height and width.
        sections: [usize; 3],
        /// Which frequencies these are.
        layout: MropeLayout,
    },
}

/// Positions of a row on the axes time, height and width.
pub(super) type Position = [i64; 3];

impl DraftPositions {
    /// Positions of the prompt's tokens at `places`.
    pub(super) fn of_prompt(
        self,
        prompt: &EncodedPrompt,
        places: &[i64],
        of: PositionsOf,
    ) -> Vec<Position> {
        let axes = prompt.positions().axes();
        // Behind the prompt all axes go on alike.
        let at = |axis: &[u32], place: i64| {
            let known = usize::try_from(place).ok().and_then(|p| axis.get(p));
            known.map_or(place.saturating_add(prompt.rope_delta()), |&known| {
                i64::from(known)
            })
        };
        let on_axis = |axis: &[u32], place: i64| match of {
            PositionsOf::State => at(axis, place),
            PositionsOf::Next => at(axis, place + 1) - 1,
        };
        let places = places.iter().copied();
        let position = |place| match self {
            Self::Sequential => [place; 3],
            Self::Temporal => [on_axis(axes[0], place); 3],
            Self::Axes { .. } => axes.map(|axis| on_axis(axis, place)),
        };
        places.map(position).collect()
    }

    /// Position minus place of the tokens behind the prompt.
    pub(super) fn delta(self, prompt: &EncodedPrompt) -> i64 {
        match self {
            Self::Sequential => 0,
            Self::Temporal | Self::Axes { .. } => prompt.rope_delta(),
        }
    }

    /// Angles of rows at these positions.
    pub(super) fn rotary(
        self,
        rows: &[Position],
        config: &DecoderConfig,
        like: (&Device, DType),
    ) -> RotaryTable {
        let (head_dim, theta) = (config.head_dim, config.rope_theta);
        let axis = |axis: usize| rows.iter().map(move |row| row[axis]);
        match self {
            Self::Sequential | Self::Temporal => {
                RotaryTable::new(&axis(0).collect::<Vec<_>>(), head_dim, theta, like)
            }
            Self::Axes { sections, layout } => {
                let unsigned = |position| u32::try_from(position).unwrap_or(0);
                let axes = [0, 1, 2].map(|index| axis(index).map(unsigned).collect::<Vec<_>>());
                let axes = [&*axes[0], &*axes[1], &*axes[2]];
                RotaryTable::multimodal(axes, (sections, layout), head_dim, theta, like)
            }
        }
    }
}
