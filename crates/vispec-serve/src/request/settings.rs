//! How tokens are chosen and when the answer ends.

use std::num::NonZeroUsize;

use serde_json::Value;
use vispec::{AnswerPrompt, AnswerRequest, LogitAdjustments, Sampler};

use super::adjustments;
use super::fields::{Fields, wrong};
use crate::api_error::ApiError;
use crate::limits::RequestLimits;
use crate::reply::Endpoint;

/// Most stop strings of a request, as OpenAI has it.
const MAX_STOPS: usize = 4;
/// Longest stop string in bytes: text is searched for each of them with every token.
const MAX_STOP_LEN: usize = 1024;
/// Most tokens whose log-probabilities are told beside the one picked, as OpenAI has it for chats.
const MAX_LOG_PROBS: u64 = 20;

/// Values of fields that a request leaves out.
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
    /// Those of `generate`: greedy, 512 tokens, seed 0.
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

/// What the settings are called that have other names in other requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct SettingNames {
    /// The most tokens of an answer.
    limits: &'static [&'static str],
    log_probs: LogProbNames,
}

/// How log-probabilities are asked for.
#[derive(Debug, Clone, Copy)]
enum LogProbNames {
    /// Not at all.
    None,
    /// By `logprobs`, a number.
    Number,
    /// By `logprobs`, true or false, and `top_logprobs`.
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

/// The names in requests to `/v1/responses`.
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
        Ok(Self {
            max_new_tokens: max_new_tokens.unwrap_or(defaults.max_new_tokens.min(most)),
            sampler: sampler(fields, defaults)?,
            seed: fields.integer("seed", 0)?.unwrap_or(defaults.seed),
            stop: stop_strings(fields)?,
            adjustments: adjustments::read(fields)?,
            log_probs: log_probs(fields, names.log_probs)?,
        })
    }

    pub(super) fn request(self, prompt: AnswerPrompt) -> AnswerRequest {
        AnswerRequest {
            max_new_tokens: self.max_new_tokens,
            sampler: self.sampler,
            seed: self.seed,
            stop: self.stop,
            adjustments: self.adjustments,
            log_probs: self.log_probs,
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

/// A number of tokens that is not more than the server gives.
fn bounded_tokens(fields: &mut Fields, name: &str, most: usize) -> Result<Option<usize>, ApiError> {
    // More than the context holds is as good as no limit.
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
        // What other servers take for "all".
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

/// How many log-probabilities are told beside those of the tokens picked, if any are.
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
                        "top_logprobs is allowed with logprobs: true only",
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
