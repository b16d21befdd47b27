//! From the JSON of a request to what the model is asked, strictly: a field that would change the
//! answer and is not supported is an error and never ignored.

mod chat;
mod completion;
mod fields;
mod image_url;
mod neutral;
mod settings;

use axum::http::StatusCode;
use serde_json::Value;

use crate::api_error::ApiError;
use crate::limits::RequestLimits;
use crate::model::{AnswerPrompt, AnswerRequest};
use crate::reply::Endpoint;
use fields::Fields;
pub use settings::RequestDefaults;
use settings::Settings;

/// A request that makes sense.
#[derive(Debug)]
pub(crate) struct ParsedRequest {
    /// What the model is asked.
    pub(crate) answer: AnswerRequest,
    /// How the client wants to hear of it.
    pub(crate) delivery: Delivery,
}

/// How an answer is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// Whole or in pieces.
    pub(crate) mode: DeliveryMode,
    /// What comes besides the standard fields.
    pub(crate) extension: Extension,
}

/// Whole or in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeliveryMode {
    /// One object when the answer has ended.
    Whole,
    /// Server-sent events.
    Stream,
    /// Server-sent events, the last with the counts of tokens.
    StreamWithUsage,
}

/// What comes besides the standard fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extension {
    /// Nothing.
    None,
    /// Fields `vispec` with cycles and statistics.
    Detail,
}

/// What requests are read against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestRules<'a> {
    /// Name of the model that is served.
    pub(crate) model_id: &'a str,
    /// Values of absent fields.
    pub(crate) defaults: &'a RequestDefaults,
    /// Bounds.
    pub(crate) limits: &'a RequestLimits,
}

impl ParsedRequest {
    /// Reads the body of a request to `endpoint`.
    ///
    /// # Errors
    /// Status 400, or 404 for another model, naming the field at fault.
    pub(crate) fn read(
        endpoint: Endpoint,
        body: &[u8],
        rules: RequestRules<'_>,
    ) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        check_model(&mut fields, rules.model_id)?;
        let prompt = match endpoint {
            Endpoint::Chat => chat::prompt(&mut fields, rules.limits)?,
            Endpoint::Completion => AnswerPrompt::Text(completion::prompt(&mut fields)?),
        };
        let settings = Settings::read(&mut fields, endpoint, rules.defaults)?;
        let delivery = delivery(&mut fields)?;
        neutral::check_rest(fields)?;
        Ok(Self {
            answer: settings.request(prompt),
            delivery,
        })
    }
}

fn check_model(fields: &mut Fields, served: &str) -> Result<(), ApiError> {
    match fields.string("model")? {
        Some(model) if model != served => Err(ApiError::field(
            "model",
            "model_not_found",
            format!("the model {model:?} is not served, expected {served:?}"),
        )
        .with_status(StatusCode::NOT_FOUND)),
        _ => Ok(()),
    }
}

fn delivery(fields: &mut Fields) -> Result<Delivery, ApiError> {
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let usage = match fields.object("stream_options")? {
        None => false,
        Some(_) if !stream => {
            return Err(ApiError::field(
                "stream_options",
                "invalid_value",
                "stream_options is allowed with stream: true only",
            ));
        }
        Some(mut options) => {
            let usage = options.boolean("include_usage")?.unwrap_or(false);
            // Padding against traffic analysis; this server has none to switch off.
            if options.boolean("include_obfuscation")? == Some(true) {
                return Err(ApiError::field(
                    "stream_options.include_obfuscation",
                    "unsupported_value",
                    "include_obfuscation is not supported",
                ));
            }
            options.end()?;
            usage
        }
    };
    let detail = match fields.object("vispec")? {
        None => false,
        Some(mut options) => {
            let detail = options.boolean("detail")?.unwrap_or(false);
            options.end()?;
            detail
        }
    };
    Ok(Delivery {
        mode: match (stream, usage) {
            (false, _) => DeliveryMode::Whole,
            (true, false) => DeliveryMode::Stream,
            (true, true) => DeliveryMode::StreamWithUsage,
        },
        extension: if detail {
            Extension::Detail
        } else {
            Extension::None
        },
    })
}

/// The kind of a JSON value, for messages.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
