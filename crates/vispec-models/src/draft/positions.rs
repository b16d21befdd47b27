//! Rotary positions of a draft's rows.

use burn::tensor::{DType, Device};

use super::reading::PositionsOf;
use crate::nn::{DecoderConfig, MropeLayout, RotaryTable};
use crate::prompt::EncodedPrompt;

/// Rule for the position of a row. Unless [`PositionsOf`] says otherwise, a row has the position of
/// the token whose hidden state it contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DraftPositions {
    /// The token's index in the sequence.
    Sequential,
    /// The target's position on the time axis.
    Temporal,
    /// The target's positions on all axes.
    Axes {
        /// Number of frequencies that rotate with time, height and width.
        sections: [usize; 3],
        /// Assignment of the frequencies to the axes.
        layout: MropeLayout,
    },
}

/// Positions of a row on the time, height and width axes.
pub(super) type Position = [i64; 3];

impl DraftPositions {
    /// Returns the positions of the prompt's tokens at the indices `places`.
    pub(super) fn of_prompt(
        self,
        prompt: &EncodedPrompt,
        places: &[i64],
        of: PositionsOf,
    ) -> Vec<Position> {
        let axes = prompt.positions().axes();
        // After the prompt, all axes advance together.
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

    /// Returns the difference between position and index of the tokens after the prompt.
    pub(super) fn delta(self, prompt: &EncodedPrompt) -> i64 {
        match self {
            Self::Sequential => 0,
            Self::Temporal | Self::Axes { .. } => prompt.rope_delta(),
        }
    }

    /// Returns the rotary angles of rows at these positions.
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
