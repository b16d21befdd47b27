//! The selection of a target's hidden states that serve as features.

use std::fmt;
use std::sync::Arc;

use burn::tensor::{Tensor, s};

use crate::nn::{join_columns, slice_rows};

/// A hidden state of a target, `[rows, hidden]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetState {
    /// The output of the final norm, which is the input of the head.
    Last,
    /// The residual stream at the input of this layer. The number of layers stands for the output
    /// of the last layer, before the final norm.
    Residual(usize),
}

/// The hidden states of a target that are concatenated, in this order, into the features of a row.
/// Cloning shares the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureSpec(Arc<[TargetState]>);

impl FeatureSpec {
    /// Returns a spec with only the output of the final norm, which ViSpec, EAGLE-2 and Medusa
    /// read.
    #[must_use]
    pub fn last() -> Self {
        Self(Arc::new([TargetState::Last]))
    }

    /// Returns a spec with states of the residual stream, which EAGLE-3 reads. Number 0 is the
    /// input of the first layer. Duplicates are ignored; without any number the result equals
    /// [`last`](Self::last).
    #[must_use]
    pub fn residual(numbers: &[usize]) -> Self {
        let mut states: Vec<TargetState> = Vec::with_capacity(numbers.len());
        for state in numbers.iter().copied().map(TargetState::Residual) {
            if !states.contains(&state) {
                states.push(state);
            }
        }
        if states.is_empty() {
            return Self::last();
        }
        Self(states.into())
    }

    /// Returns these states, followed by those of `more` that are not among them.
    #[must_use]
    pub fn and(&self, more: &Self) -> Self {
        if self.covers(more) {
            return self.clone();
        }
        let new = more.0.iter().filter(|state| !self.0.contains(state));
        Self(self.0.iter().chain(new).copied().collect())
    }

    /// Returns the states in order; at least one.
    pub(crate) fn states(&self) -> &[TargetState] {
        &self.0
    }

    /// Returns the numbers of the residual states, in order.
    pub(crate) fn residual_numbers(&self) -> Vec<usize> {
        let numbers = self.0.iter().filter_map(|state| match state {
            TargetState::Last => None,
            TargetState::Residual(number) => Some(*number),
        });
        numbers.collect()
    }

    /// Returns whether all states of `other` are among these.
    pub(crate) fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|state| self.0.contains(state))
    }

    /// Selects the states of `wanted` from `features` `[rows, states * hidden]`, which have the
    /// states of `self`. Returns `None` if a state is missing.
    pub(crate) fn select(&self, features: &Tensor<2>, wanted: &Self) -> Option<Tensor<2>> {
        if self == wanted {
            return Some(features.clone());
        }
        let [_, width] = features.dims();
        let hidden = width / self.0.len();
        let columns = wanted.0.iter().map(|state| {
            let place = self.0.iter().position(|known| known == state)?;
            let columns = place * hidden..(place + 1) * hidden;
            Some(features.clone().slice(s![.., columns]))
        });
        Some(join_columns(columns.collect::<Option<_>>()?))
    }
}

impl Default for FeatureSpec {
    fn default() -> Self {
        Self::last()
    }
}

impl fmt::Display for FeatureSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, state) in self.0.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            match state {
                TargetState::Last => write!(f, "{comma}last")?,
                TargetState::Residual(number) => write!(f, "{comma}{number}")?,
            }
        }
        Ok(())
    }
}

/// Returns the states of the residual stream that EAGLE-3 reads by default from a target with
/// `layers` layers: a low one, a middle one and a high one.
#[must_use]
pub fn eagle3_states(layers: usize) -> [usize; 3] {
    [2, layers / 2, layers.saturating_sub(3)]
}

/// Hidden states of the rows of one pass.
#[derive(Debug)]
pub(crate) struct PassStates {
    /// Output of the final norm, `[rows, hidden]`.
    pub(crate) last: Tensor<2>,
    /// States of the residual stream with their numbers, each `[rows, hidden]`.
    pub(crate) residual: Vec<(usize, Tensor<2>)>,
}

impl PassStates {
    /// Returns the features `[rows, states * hidden]` of some rows of the pass.
    ///
    /// # Panics
    /// If the pass did not record a state.
    pub(crate) fn features(&self, spec: &FeatureSpec, rows: std::ops::Range<usize>) -> Tensor<2> {
        let columns = spec.0.iter().map(|state| {
            let all = match state {
                TargetState::Last => &self.last,
                TargetState::Residual(number) => {
                    let known = self.residual.iter().find(|(known, _)| known == number);
                    let Some((_, known)) = known else {
                        unreachable!("the pass did not record state {number}");
                    };
                    known
                }
            };
            slice_rows(all, rows.clone())
        });
        join_columns(columns.collect())
    }
}

#[cfg(all(test, feature = "flex"))]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use burn::tensor::{Device, TensorData};

    use super::*;

    #[test]
    fn states_are_taken_once_and_in_order() {
        let spec = FeatureSpec::residual(&[2, 2, 0]);
        let expected = [TargetState::Residual(2), TargetState::Residual(0)];
        assert_eq!(spec.states(), expected);
        let with_last = spec.and(&FeatureSpec::last());
        assert_eq!(with_last.to_string(), "2, 0, last");
        assert_eq!(with_last.residual_numbers(), [2, 0]);
        assert!(with_last.covers(&spec) && !spec.covers(&with_last));
        assert_eq!(with_last.and(&spec), with_last);
        assert_eq!(FeatureSpec::residual(&[]), FeatureSpec::last());
    }

    #[test]
    fn columns_follow_their_states() {
        let values = [20.0f32, 21.0, 0.0, 1.0, 90.0, 91.0];
        let data = TensorData::new(values.to_vec(), [1, 6]);
        let features = Tensor::<2>::from_data(data, &Device::flex());
        let known = FeatureSpec::residual(&[2, 0]).and(&FeatureSpec::last());
        let selected = |wanted: &FeatureSpec| -> Option<Vec<f32>> {
            let selected = known.select(&features, wanted)?;
            Some(selected.into_data().try_into_vec().unwrap())
        };
        assert_eq!(selected(&known).unwrap(), values);
        assert_eq!(selected(&FeatureSpec::last()).unwrap(), [90.0, 91.0]);
        let swapped = selected(&FeatureSpec::residual(&[0, 2])).unwrap();
        assert_eq!(swapped, [0.0, 1.0, 20.0, 21.0]);
        assert!(selected(&FeatureSpec::residual(&[1])).is_none());
    }
}
