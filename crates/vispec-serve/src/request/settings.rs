//! Sampling settings and the end of an answer.

use std::num::NonZeroUsize;

use serde_json::Value;
use vispec::{AnswerPrompt, AnswerRequest, EndOfSequence, LogitAdjustments, Sampler};

use super::adjustments;
use super::fields::{Fields, wrong};
use crate::api_error::ApiError;
use crate::endpoint::Endpoint;
use crate::limits::RequestLimits;

/// Maximum number of stop strings per request, as in OpenAI's API.
const MAX_STOPS: usize = 4;
/// Maximum length of a stop string in bytes: each token's text is searched for all of them.
const MAX_STOP_LEN: usize = 1024;
/// Maximum number of alternatives reported with log-probabilities, as in OpenAI's API for chats.
const MAX_LOG_PROBS: u64 = 20;

/// Default values of request fields.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestDefaults {
    /// `max_tokens`
    pub max_new_tokens: usize,
    /// `temperature`
    pub temperature: f32,
    /// `top_p`
    pub top_p: Option<f32>,
    /// `top_k`
    pub top_k: Option<NonZeroUsize>,
    /// `seed`
    pub seed: u64,
}

impl Default for RequestDefaults {
    /// The defaults of `generate`: greedy, 512 tokens, seed 0.
    fn default() -> Self {
        Self {
            max_new_tokens: 512,
            temperature: 0.0,
            top_p: None,
            top_k: None,
            seed: 0,
        }
    }
}

/// Names of the settings whose names differ between endpoints.
#[derive(Debug, Clone, Copy)]
pub(super) struct SettingNames {
    /// Names of the maximum number of tokens per answer.
    limits: &'static [&'static str],
    log_probs: LogProbNames,
}

/// How log-probabilities are requested.
#[derive(Debug, Clone, Copy)]
enum LogProbNames {
    /// Not at all.
    None,
    /// With `logprobs`, a number.
    Number,
    /// With `logprobs`, a boolean, and `top_logprobs`.
    Switch,
}

impl From<Endpoint> for SettingNames {
    fn from(endpoint: Endpoint) -> Self {
        match endpoint {
            Endpoint::Chat => Self {
                limits: &["max_tokens", "max_completion_tokens"],
                log_probs: LogProbNames::Switch,
            },
            Endpoint::Completion => Self {
                limits: &["max_tokens"],
                log_probs: LogProbNames::Number,
            },
        }
    }
}

/// The names for `/v1/responses`.
pub(super) const RESPONSE_NAMES: SettingNames = SettingNames {
    limits: &["max_output_tokens"],
    log_probs: LogProbNames::None,
};

/// The settings of one request.
#[derive(Debug)]
pub(super) struct Settings {
    max_new_tokens: usize,
    sampler: Sampler,
    seed: u64,
    stop: Vec<String>,
    adjustments: LogitAdjustments,
    log_probs: Option<usize>,
    end_of_sequence: EndOfSequence,
}

impl Settings {
    pub(super) fn read(
        fields: &mut Fields,
        names: SettingNames,
        defaults: &RequestDefaults,
        limits: &RequestLimits,
    ) -> Result<Self, ApiError> {
        let most = limits.max_answer_tokens;
        let max_new_tokens = max_new_tokens(fields, names.limits, most)?;
        let max_new_tokens = max_new_tokens.unwrap_or(defaults.max_new_tokens.min(most));
        Ok(Self {
            end_of_sequence: end_of_sequence(fields, max_new_tokens)?,
            max_new_tokens,
            sampler: sampler(fields, defaults)?,
            seed: fields.integer("seed", 0)?.unwrap_or(defaults.seed),
            stop: stop_strings(fields)?,
            adjustments: adjustments::read(fields)?,
            log_probs: log_probs(fields, names.log_probs)?,
        })
    }

    /// Rejects settings that continue an answer after the end of the grammar in `field`.
    ///
    /// # Errors
    /// Status 400 for `ignore_eos` and `min_tokens`.
    pub(super) fn check_end(&self, field: &str) -> Result<(), ApiError> {
        let place = match self.end_of_sequence {
            EndOfSequence::Ends => return Ok(()),
            EndOfSequence::Ignored => "ignore_eos",
            EndOfSequence::EndsAfter(_) => "min_tokens",
        };
        let message = format!("{place} asks for text after the end of what {field} allows");
        Err(ApiError::field(place, "unsupported_value", message))
    }

    pub(super) fn request(self, prompt: AnswerPrompt) -> AnswerRequest {
        AnswerRequest {
            max_new_tokens: self.max_new_tokens,
            sampler: self.sampler,
            seed: self.seed,
            stop: self.stop,
            adjustments: self.adjustments,
            log_probs: self.log_probs,
            end_of_sequence: self.end_of_sequence,
            ..AnswerRequest::new(prompt)
        }
    }
}

fn max_new_tokens(
    fields: &mut Fields,
    names: &[&str],
    most: usize,
) -> Result<Option<usize>, ApiError> {
    let mut found: Option<(&str, usize)> = None;
    for &name in names {
        let Some(tokens) = bounded_tokens(fields, name, most)? else {
            continue;
        };
        if let Some((other, others)) = found.filter(|&(_, others)| others != tokens) {
            return Err(ApiError::field(
                other,
                "invalid_value",
                format!("{other} is {others} and {name} is {tokens}, expected one of them"),
            ));
        }
        found = Some((name, tokens));
    }
    Ok(found.map(|(_, tokens)| tokens))
}

/// Reads the settings of load generators, whose answers must have a given length.
fn end_of_sequence(fields: &mut Fields, most: usize) -> Result<EndOfSequence, ApiError> {
    let ignored = fields.boolean("ignore_eos")?.unwrap_or(false);
    let least = fields.integer("min_tokens", 0)?.unwrap_or(0);
    match usize::try_from(least).ok().filter(|&least| least <= most) {
        None => Err(ApiError::field(
            "min_tokens",
            "invalid_value",
            format!(
                "min_tokens is {least}, expected at most {most}, the token limit of the answer"
            ),
        )),
        Some(_) if ignored => Ok(EndOfSequence::Ignored),
        Some(0) => Ok(EndOfSequence::Ends),
        Some(least) => Ok(EndOfSequence::EndsAfter(least)),
    }
}

/// Reads a number of tokens that must not exceed the server's limit.
fn bounded_tokens(fields: &mut Fields, name: &str, most: usize) -> Result<Option<usize>, ApiError> {
    // More tokens than the context holds means no limit.
    let found = fields.integer(name, 1)?;
    let found = found.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    match found.filter(|&found| found > most) {
        None => Ok(found),
        Some(found) => Err(ApiError::field(
            name,
            "invalid_value",
            format!("{name} is {found}, expected at most {most}, the limit of this server"),
        )),
    }
}

fn sampler(fields: &mut Fields, defaults: &RequestDefaults) -> Result<Sampler, ApiError> {
    let temperature = fields.number("temperature")?.map(|value| value as f32);
    let top_p = fields.number("top_p")?.map(|value| value as f32);
    let top_k = match fields.value("top_k") {
        None => defaults.top_k,
        // Values that mean "all" for other servers.
        Some(value) if value.as_i64() == Some(-1) || value.as_u64() == Some(0) => None,
        Some(value) => {
            let k = value.as_u64().and_then(|k| usize::try_from(k).ok());
            let k = k.and_then(NonZeroUsize::new);
            Some(k.ok_or_else(|| wrong("top_k", &value, "a whole number of at least 1"))?)
        }
    };
    let temperature = temperature.unwrap_or(defaults.temperature);
    let top_p = top_p.or(defaults.top_p);
    Sampler::new(temperature, top_p, top_k).map_err(|error| {
        let param = match error {
            vispec::core::ConfigError::TopP(_) => "top_p",
            _ => "temperature",
        };
        ApiError::field(param, "invalid_value", error.to_string())
    })
}

/// Reads the number of alternatives to report with log-probabilities, if these are requested.
fn log_probs(fields: &mut Fields, names: LogProbNames) -> Result<Option<usize>, ApiError> {
    let (name, wanted) = match names {
        LogProbNames::None => return Ok(None),
        LogProbNames::Number => ("logprobs", fields.integer("logprobs", 0)?),
        LogProbNames::Switch => {
            let asked = fields.boolean("logprobs")?.unwrap_or(false);
            match (asked, fields.integer("top_logprobs", 0)?) {
                (false, None | Some(0)) => return Ok(None),
                (false, Some(_)) => {
                    return Err(ApiError::field(
                        "top_logprobs",
                        "invalid_value",
                        "top_logprobs is only allowed with logprobs: true",
                    ));
                }
                (true, wanted) => ("top_logprobs", Some(wanted.unwrap_or(0))),
            }
        }
    };
    match wanted {
        Some(found) if found > MAX_LOG_PROBS => Err(ApiError::field(
            name,
            "invalid_value",
            format!("{name} is {found}, expected at most {MAX_LOG_PROBS}"),
        )),
        wanted => Ok(wanted.and_then(|n| usize::try_from(n).ok())),
    }
}

fn stop_strings(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let stops = match fields.value("stop") {
        None => Vec::new(),
        Some(Value::String(stop)) => vec![stop],
        Some(Value::Array(items)) => {
            let strings = items.into_iter().map(|item| match item {
                Value::String(stop) => Ok(stop),
                other => Err(wrong("stop", &other, "a string or a list of strings")),
            });
            strings.collect::<Result<_, _>>()?
        }
        Some(other) => return Err(wrong("stop", &other, "a string or a list of strings")),
    };
    let invalid = |message: String| Err(ApiError::field("stop", "invalid_value", message));
    if stops.len() > MAX_STOPS {
        return invalid(format!(
            "stop has {} strings, expected at most {MAX_STOPS}",
            stops.len()
        ));
    }
    match stops
        .iter()
        .find(|stop| !(1..=MAX_STOP_LEN).contains(&stop.len()))
    {
        Some(stop) => invalid(format!(
            "stop has a string of {} bytes, expected 1 to {MAX_STOP_LEN}",
            stop.len()
        )),
        None => Ok(stops),
    }
}
