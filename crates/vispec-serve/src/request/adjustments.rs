//! Penalties and biases of a request.

use std::collections::BTreeMap;

use serde_json::Value;
use vispec::LogitAdjustments;

use super::fields::{Fields, wrong};
use crate::api_error::ApiError;

/// Maximum number of biases per request: each changes every row of logits.
const MAX_BIASES: usize = 1024;
/// Maximum magnitude of a bias, as in OpenAI's API.
const MAX_BIAS: f64 = 100.0;
/// Maximum magnitude of a presence or frequency penalty, as in OpenAI's API.
const MAX_PENALTY: f64 = 2.0;

/// Reads penalties and biases; absent fields change nothing.
///
/// # Errors
/// Names the field at fault.
pub(super) fn read(fields: &mut Fields) -> Result<LogitAdjustments, ApiError> {
    let neutral = LogitAdjustments::default();
    let repetition_penalty = match fields.number("repetition_penalty")? {
        None => neutral.repetition_penalty,
        Some(found) => {
            let penalty = found as f32;
            if !(penalty > 0.0 && penalty.is_finite()) {
                return Err(ApiError::field(
                    "repetition_penalty",
                    "invalid_value",
                    format!("repetition_penalty is {found}, expected a number above 0"),
                ));
            }
            penalty
        }
    };
    let presence = within(
        fields.number("presence_penalty")?,
        "presence_penalty",
        MAX_PENALTY,
    )?;
    let frequency = within(
        fields.number("frequency_penalty")?,
        "frequency_penalty",
        MAX_PENALTY,
    )?;
    Ok(LogitAdjustments {
        repetition_penalty,
        presence_penalty: presence.unwrap_or(neutral.presence_penalty),
        frequency_penalty: frequency.unwrap_or(neutral.frequency_penalty),
        logit_bias: logit_bias(fields)?,
        ..neutral
    })
}

fn within(found: Option<f64>, location: &str, most: f64) -> Result<Option<f32>, ApiError> {
    match found {
        Some(found) if !(-most..=most).contains(&found) => Err(ApiError::field(
            location,
            "invalid_value",
            format!("{location} is {found}, expected -{most} to {most}"),
        )),
        found => Ok(found.map(|found| found as f32)),
    }
}

fn logit_bias(fields: &mut Fields) -> Result<BTreeMap<u32, f32>, ApiError> {
    let invalid = |message: String| ApiError::field("logit_bias", "invalid_value", message);
    let entries = match fields.value("logit_bias") {
        None => return Ok(BTreeMap::new()),
        Some(Value::Object(entries)) => entries,
        Some(other) => return Err(wrong("logit_bias", &other, "an object")),
    };
    if entries.len() > MAX_BIASES {
        return Err(invalid(format!(
            "logit_bias has {} tokens, expected at most {MAX_BIASES}",
            entries.len()
        )));
    }
    let biases = entries.into_iter().map(|(token, bias)| {
        let location = format!("logit_bias.{token}");
        let token = token.parse();
        let token =
            token.map_err(|_| invalid(format!("the key of {location} is not a token id")))?;
        let found = bias.as_f64();
        let found = found.ok_or_else(|| wrong(&location, &bias, "a number"))?;
        let bias = within(Some(found), &location, MAX_BIAS)?.unwrap_or(0.0);
        Ok((token, bias))
    });
    biases.collect()
}
