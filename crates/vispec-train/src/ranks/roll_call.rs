//! What all ranks have to have in common before a run starts.

use serde::{Deserialize, Serialize};
use vispec_kernels::Isa;

use super::agree::Ranks;
use crate::error::TrainError;
use crate::run::first_difference;

/// What decides the outcome of a run, as one rank has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RollCall {
    /// Rounding differs between instruction sets.
    instructions: String,
    config: toml::Value,
    data: String,
    /// Steps done, from the state that was found.
    step: usize,
    /// Hash of parameters and moments.
    weights: String,
}

impl RollCall {
    /// What this rank has.
    ///
    /// # Panics
    /// If a config cannot be written as it is read.
    pub(crate) fn new(config: &impl Serialize, data: String, step: usize, weights: String) -> Self {
        Self {
            instructions: format!("{:?}", Isa::detected()),
            config: toml::Value::try_from(config).expect("a config is TOML"),
            data,
            step,
            weights,
        }
    }

    /// Fails on all ranks unless all have the same; without others nothing is asked.
    ///
    /// # Errors
    /// [`TrainError::Ranks`].
    pub(crate) fn call(
        ranks: &Ranks,
        own: impl FnOnce() -> Result<Self, TrainError>,
    ) -> Result<(), TrainError> {
        ranks.require_equal(own, Self::difference)
    }

    /// The first thing in which a rank differs from the first one.
    fn difference(first: &Self, rank: &Self) -> String {
        if let Some(setting) = first_difference(&first.config, &rank.config) {
            let [of_first, own] = setting.values;
            return format!("setting {} is {own}, on rank 0 {of_first}", setting.path);
        }
        let named = [
            ("instruction set", &first.instructions, &rank.instructions),
            ("hash of the data", &first.data, &rank.data),
            (
                "step that the run stands at",
                &first.step.to_string(),
                &rank.step.to_string(),
            ),
            ("hash of the weights", &first.weights, &rank.weights),
        ];
        let mut differing = named.iter().filter(|(_, of_first, own)| of_first != own);
        differing
            .next()
            .map_or_else(String::new, |(what, of_first, own)| {
                format!("{what} is {own}, on rank 0 {of_first}")
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
        assert_eq!(said(&other), "setting data.accumulate is 4, on rank 0 2");
        let mut other = first.clone();
        other.instructions = "Sse9".to_owned();
        assert!(said(&other).starts_with("instruction set is Sse9, on rank 0 "));
        let mut other = first.clone();
        other.data = "d1".to_owned();
        assert_eq!(said(&other), "hash of the data is d1, on rank 0 d0");
        let mut other = first.clone();
        other.step = 0;
        assert_eq!(
            said(&other),
            "step that the run stands at is 0, on rank 0 3"
        );
        let mut other = first.clone();
        other.weights = "w1".to_owned();
        assert_eq!(said(&other), "hash of the weights is w1, on rank 0 w0");
    }
}
