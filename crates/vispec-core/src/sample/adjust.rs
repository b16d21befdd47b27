//! Changes to logits that depend on earlier tokens.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{ConfigError, TokenId};

/// Changes to logits before a token is chosen.
///
/// They apply in this order: repetition penalty, presence and frequency penalty, bias, withheld
/// tokens. The bias comes after the penalties, so that no penalty can override it.
#[derive(Clone, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LogitAdjustments {
    /// Divides positive logits, and multiplies negative ones, of tokens in the prompt or the
    /// answer; 1 changes nothing.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens in the answer; 0 changes nothing.
    pub presence_penalty: f32,
    /// Subtracted once for each occurrence of a token in the answer; 0 changes nothing.
    pub frequency_penalty: f32,
    /// Added to the logits of these tokens.
    pub logit_bias: BTreeMap<TokenId, f32>,
    /// Tokens that cannot be chosen at the start of the answer.
    pub withheld: Withheld,
}

/// Tokens that cannot be chosen until the answer has a minimum length.
#[derive(Clone, Default, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Withheld {
    /// The tokens.
    pub tokens: Vec<TokenId>,
    /// Number of answer tokens before they are allowed.
    pub until: usize,
}

impl Default for LogitAdjustments {
    /// Returns neutral settings.
    fn default() -> Self {
        Self {
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: BTreeMap::new(),
            withheld: Withheld::default(),
        }
    }
}

impl LogitAdjustments {
    /// Checks every value.
    ///
    /// # Errors
    /// [`ConfigError::Adjustment`] if a value is not finite, or the repetition penalty is not above
    /// 0.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bias = self.logit_bias.values().map(|&bias| ("logit bias", bias));
        let values = [
            ("repetition penalty", self.repetition_penalty),
            ("presence penalty", self.presence_penalty),
            ("frequency penalty", self.frequency_penalty),
        ];
        let mut values = values.into_iter().chain(bias);
        match values.find(|(_, value)| !value.is_finite()) {
            Some((quantity, found)) => Err(ConfigError::Adjustment { quantity, found }),
            None if self.repetition_penalty <= 0.0 => Err(ConfigError::Adjustment {
                quantity: "repetition penalty",
                found: self.repetition_penalty,
            }),
            None => Ok(()),
        }
    }

    /// Returns `true` if the settings never change any logits.
    #[must_use]
    pub fn is_neutral(&self) -> bool {
        *self == Self::default()
    }
}

/// The tokens of prompt and answer, for the penalties.
#[derive(Clone, Default, Debug)]
pub(crate) struct Said {
    prompt: HashSet<TokenId>,
    /// Count of each token in the answer.
    answer: HashMap<TokenId, u32>,
    /// Number of tokens in the answer.
    len: usize,
}

impl Said {
    pub(crate) fn new(prompt: &[TokenId]) -> Self {
        Self {
            prompt: prompt.iter().copied().collect(),
            answer: HashMap::new(),
            len: 0,
        }
    }

    pub(crate) fn note(&mut self, token: TokenId) {
        *self.answer.entry(token).or_default() += 1;
        self.len += 1;
    }

    /// Changes `logits`, `[vocab]`, in place. Each logit changes independently of the others, so
    /// the iteration order of tokens does not matter.
    pub(crate) fn adjust(&self, logits: &mut [f32], adjustments: &LogitAdjustments) {
        let penalty = adjustments.repetition_penalty;
        let only_prompt = self
            .prompt
            .iter()
            .filter(|id| !self.answer.contains_key(id));
        for &token in only_prompt.chain(self.answer.keys()) {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit = if *logit > 0.0 {
                    *logit / penalty
                } else {
                    *logit * penalty
                };
            }
        }
        for (&token, &count) in &self.answer {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit -=
                    adjustments.presence_penalty + adjustments.frequency_penalty * count as f32;
            }
        }
        for (&token, &bias) in &adjustments.logit_bias {
            if let Some(logit) = logits.get_mut(token as usize) {
                *logit += bias;
            }
        }
        let Withheld { tokens, until } = &adjustments.withheld;
        for &token in tokens.iter().filter(|_| self.len < *until) {
            if let Some(logit) = logits.get_mut(token as usize) {
                // Finite, as every logit must be, but with probability 0.
                *logit = f32::MIN;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::float_cmp, reason = "the numbers are exact in binary")]
mod tests {
    use super::*;

    #[test]
    fn each_change_reaches_its_tokens() {
        let mut said = Said::new(&[0, 1]);
        for token in [1, 2, 2] {
            said.note(token);
        }
        let adjustments = LogitAdjustments {
            repetition_penalty: 2.0,
            presence_penalty: 0.5,
            frequency_penalty: 0.25,
            logit_bias: BTreeMap::from([(3, 7.0), (99, 1.0)]),
            withheld: Withheld::default(),
        };
        let mut logits = [4.0, -1.0, 2.0, 0.0, 3.0];
        said.adjust(&mut logits, &adjustments);
        // Halved; doubled, minus 0.5 and 0.25; halved, minus 0.5 and twice 0.25; biased; unchanged.
        assert_eq!(logits, [2.0, -2.75, 0.0, 7.0, 3.0]);
    }

    #[test]
    fn tokens_are_withheld_from_the_first_ones() {
        let adjustments = LogitAdjustments {
            logit_bias: BTreeMap::from([(1, 100.0)]),
            withheld: Withheld {
                tokens: vec![1, 99],
                until: 2,
            },
            ..Default::default()
        };
        let mut said = Said::new(&[7; 5]);
        let mut best = || {
            let mut logits = [3.0, 5.0, 4.0];
            said.adjust(&mut logits, &adjustments);
            said.note(0);
            logits
        };
        assert_eq!(best(), [3.0, f32::MIN, 4.0]);
        assert_eq!(best(), [3.0, f32::MIN, 4.0]);
        assert_eq!(best(), [3.0, 105.0, 4.0]);
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
        assert!(LogitAdjustments::default().check().is_ok());
        for (adjustments, named) in [
            (
                LogitAdjustments {
                    repetition_penalty: 0.0,
                    ..Default::default()
                },
                "repetition penalty",
            ),
            (
                LogitAdjustments {
                    presence_penalty: f32::NAN,
                    ..Default::default()
                },
                "presence penalty",
            ),
            (
                LogitAdjustments {
                    logit_bias: BTreeMap::from([(1, f32::INFINITY)]),
                    ..Default::default()
                },
                "logit bias",
            ),
        ] {
            let error = adjustments.check().unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
