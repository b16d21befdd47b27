//! Check that all ranks start a run from the same state.

use serde::{Deserialize, Serialize};
use vispec_kernels::Isa;

use super::agree::Ranks;
use crate::error::TrainError;
use crate::run::first_difference;

/// Everything that determines the outcome of a run, as found by one rank.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RollCall {
    /// Rounding differs between instruction sets.
    instructions: String,
    config: toml::Value,
    data: String,
    /// Number of steps done, from the saved state.
    step: usize,
    /// Hash of parameters and moments.
    weights: String,
}

impl RollCall {
    /// Collects the values of this rank.
    ///
    /// # Panics
    /// If the config cannot be serialised as TOML.
    pub(crate) fn new(config: &impl Serialize, data: String, step: usize, weights: String) -> Self {
        Self {
            instructions: format!("{:?}", Isa::detected()),
            config: toml::Value::try_from(config).expect("a config is TOML"),
            data,
            step,
            weights,
        }
    }

    /// Fails on all ranks unless all have the same values. With one rank, `own` is not called.
    ///
    /// # Errors
    /// [`TrainError::Ranks`] if values differ, and any error of `own`.
    pub(crate) fn call(
        ranks: &Ranks,
        own: impl FnOnce() -> Result<Self, TrainError>,
    ) -> Result<(), TrainError> {
        ranks.require_equal(own, Self::difference)
    }

    /// Returns a message about the first value of a rank that differs from that of the first rank.
    fn difference(first: &Self, rank: &Self) -> String {
        if let Some(setting) = first_difference(&first.config, &rank.config) {
            let [of_first, own] = setting.values;
            return format!(
                "setting {} is {own}, but {of_first} on rank 0",
                setting.path
            );
        }
        let named = [
            ("instruction set", &first.instructions, &rank.instructions),
            ("hash of the data", &first.data, &rank.data),
            (
                "number of steps done",
                &first.step.to_string(),
                &rank.step.to_string(),
            ),
            ("hash of the weights", &first.weights, &rank.weights),
        ];
        let mut differing = named.iter().filter(|(_, of_first, own)| of_first != own);
        differing
            .next()
            .map_or_else(String::new, |(what, of_first, own)| {
                format!("{what} is {own}, but {of_first} on rank 0")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roll_call(config: &str) -> RollCall {
        let config: toml::Table = toml::from_str(config).unwrap();
        RollCall::new(&config, "d0".to_owned(), 3, "w0".to_owned())
    }

    #[test]
    fn what_differs_is_named() {
        let first = roll_call("[data]\naccumulate = 2\n");
        let said = |rank: &RollCall| RollCall::difference(&first, rank);
        let other = roll_call("[data]\naccumulate = 4\n");
        assert_eq!(
            said(&other),
            "setting data.accumulate is 4, but 2 on rank 0"
        );
        let mut other = first.clone();
        other.instructions = "Sse9".to_owned();
        assert!(said(&other).starts_with("instruction set is Sse9, but "));
        let mut other = first.clone();
        other.data = "d1".to_owned();
        assert_eq!(said(&other), "hash of the data is d1, but d0 on rank 0");
        let mut other = first.clone();
        other.step = 0;
        assert_eq!(said(&other), "number of steps done is 0, but 3 on rank 0");
        let mut other = first.clone();
        other.weights = "w1".to_owned();
        assert_eq!(said(&other), "hash of the weights is w1, but w0 on rank 0");
    }
}
