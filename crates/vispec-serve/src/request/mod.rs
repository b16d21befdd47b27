//! Strict parsing of requests: an unsupported field that would change the answer is an error and
//! never ignored.

mod adjustments;
mod chat;
mod completion;
mod fields;
mod grammar;
mod image_url;
mod lenient;
mod neutral;
mod responses;
mod settings;
mod tokens;
mod tools;
mod video_url;

use axum::http::StatusCode;
use serde_json::Value;
use vispec::{AnswerPrompt, AnswerRequest, Speculation};

use crate::api_error::ApiError;
use crate::endpoint::Endpoint;
use crate::limits::RequestLimits;
use crate::remote_image::RemoteImage;
use fields::Fields;
use grammar::AskedGrammar;
pub(crate) use responses::ParsedResponse;
pub use settings::RequestDefaults;
use settings::Settings;
pub(crate) use tokens::{read_detokenize, read_tokenize};
use tools::AskedTools;

/// A valid request.
#[derive(Debug)]
pub(crate) struct ParsedRequest {
    /// The request to the model.
    pub(crate) answer: AnswerRequest,
    /// Images to be fetched, by their places among the images.
    pub(crate) remote: Vec<(usize, RemoteImage)>,
    /// Location of the field that defines the format of the answer, if any.
    pub(crate) grammar_field: Option<String>,
    /// Number of answers, each with its own seed.
    pub(crate) choices: u32,
    /// Whether tokens are drafted.
    pub(crate) speculation: Speculation,
    /// How the client receives the answer.
    pub(crate) delivery: Delivery,
}

/// How an answer is delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// Complete or streamed.
    pub(crate) mode: DeliveryMode,
    /// Additions to the standard fields.
    pub(crate) extension: Extension,
    /// How tool calls are reported.
    pub(crate) calls: Calls,
}

/// How tool calls in the text of an answer are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calls {
    /// As ordinary text: no tool may be called.
    Text,
    /// Separately from the text.
    Told,
}

/// Complete or streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeliveryMode {
    /// One object when the answer has ended.
    Whole,
    /// Server-sent events.
    Stream,
    /// Server-sent events, the last one with token counts.
    StreamWithUsage,
    /// The same, and all other events with the token counts so far.
    StreamWithRunningUsage,
}

/// Additions to the standard fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extension {
    /// Nothing.
    None,
    /// Fields `vispec` with cycles and statistics.
    Detail,
}

/// How images at web addresses are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RemotePolicy {
    /// They are an error.
    Refuse,
    /// They are fetched.
    Fetch,
}

/// How unknown fields, and some unsupported ones, are handled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Strictness {
    /// They are an error.
    #[default]
    Strict,
    /// They are ignored, and listed in a header of the response.
    Lenient,
}

/// Rules for reading requests.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RequestRules<'a> {
    /// Name of the served model.
    pub(crate) model_id: &'a str,
    /// Values of absent fields.
    pub(crate) defaults: &'a RequestDefaults,
    /// Limits of one request.
    pub(crate) limits: &'a RequestLimits,
    /// How images at web addresses are handled.
    pub(crate) remote: RemotePolicy,
    /// How unknown fields are handled.
    pub(crate) strictness: Strictness,
}

impl ParsedRequest {
    /// Reads the body of a request to `endpoint`, strictly or leniently; also returns the paths of
    /// omitted fields.
    ///
    /// # Errors
    /// Same as [`read`](Self::read).
    pub(crate) fn read_by_rules(
        endpoint: Endpoint,
        body: &[u8],
        rules: RequestRules<'_>,
    ) -> Result<(Self, Vec<String>), ApiError> {
        let read = |body: &[u8]| Self::read(endpoint, body, rules);
        match rules.strictness {
            Strictness::Strict => Ok((read(body)?, Vec::new())),
            Strictness::Lenient => lenient::read(body, read),
        }
    }

    /// Reads the body of a request to `endpoint`.
    ///
    /// # Errors
    /// Status 400, or 404 for another model; the error names the field at fault.
    pub(crate) fn read(
        endpoint: Endpoint,
        body: &[u8],
        rules: RequestRules<'_>,
    ) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        check_model(&mut fields, rules.model_id)?;
        let (prompt, remote) = match endpoint {
            Endpoint::Chat => chat::prompt(&mut fields, rules.limits, rules.remote)?,
            Endpoint::Completion => {
                let text = completion::prompt(&mut fields)?;
                (AnswerPrompt::Text(text), Vec::new())
            }
        };
        let settings = Settings::read(&mut fields, endpoint.into(), rules.defaults, rules.limits)?;
        let asked = grammar::read(&mut fields)?;
        let tools = match endpoint {
            Endpoint::Chat => tools::read(&mut fields, tools::ToolForm::Nested)?,
            Endpoint::Completion => tools::AskedTools::default(),
        };
        let calls = if tools.tools.is_empty() {
            Calls::Text
        } else {
            Calls::Told
        };
        let (prompt, asked) = with_tools(prompt, asked, tools)?;
        if let Some(asked) = &asked {
            settings.check_end(&asked.field)?;
        }
        let choices = choices(&mut fields, rules.limits)?;
        let speculation = speculation(&mut fields)?;
        let extension = extension(&mut fields)?;
        let mode = mode(&mut fields)?;
        neutral::check_rest(fields)?;
        let (grammar, grammar_field) = asked.map(|asked| (asked.source, asked.field)).unzip();
        Ok(Self {
            answer: AnswerRequest {
                grammar,
                ..settings.request(prompt)
            },
            remote,
            grammar_field,
            choices,
            speculation,
            delivery: Delivery {
                mode,
                extension,
                calls,
            },
        })
    }
}

/// Reads a body of `/v1/chat/completions` without a server, with the default settings and limits
/// and for a model of any name.
///
/// # Errors
/// The error object that a client would receive.
pub fn read_chat(body: &[u8]) -> Result<AnswerRequest, Value> {
    read_alone(Endpoint::Chat, body)
}

/// Like [`read_chat`], but for `/v1/completions`.
///
/// # Errors
/// Same as [`read_chat`].
pub fn read_completion(body: &[u8]) -> Result<AnswerRequest, Value> {
    read_alone(Endpoint::Completion, body)
}

fn read_alone(endpoint: Endpoint, body: &[u8]) -> Result<AnswerRequest, Value> {
    let named = Fields::parse(body).and_then(|mut fields| fields.string("model"));
    let model_id = named.map_err(|error| error.body())?.unwrap_or_default();
    let rules = RequestRules {
        model_id: &model_id,
        defaults: &RequestDefaults::default(),
        limits: &RequestLimits::default(),
        remote: RemotePolicy::Refuse,
        strictness: Strictness::Strict,
    };
    let parsed = ParsedRequest::read(endpoint, body, rules);
    Ok(parsed.map_err(|error| error.body())?.answer)
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

fn choices(fields: &mut Fields, limits: &RequestLimits) -> Result<u32, ApiError> {
    let most = limits.max_choices;
    let found = fields.integer("n", 1)?.unwrap_or(1);
    match u32::try_from(found).ok().filter(|&n| n <= most) {
        Some(n) => Ok(n),
        None => Err(ApiError::field(
            "n",
            "invalid_value",
            format!("n is {found}, expected at most {most}, the limit of this server"),
        )),
    }
}

fn mode(fields: &mut Fields) -> Result<DeliveryMode, ApiError> {
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let usage = match fields.object("stream_options")? {
        None => (false, false),
        Some(_) if !stream => {
            return Err(ApiError::field(
                "stream_options",
                "invalid_value",
                "stream_options is only allowed with stream: true",
            ));
        }
        Some(mut options) => {
            let usage = options.boolean("include_usage")?.unwrap_or(false);
            let running = options.boolean("continuous_usage_stats")?.unwrap_or(false);
            // Padding against traffic analysis; this server never adds any.
            if options.boolean("include_obfuscation")? == Some(true) {
                return Err(ApiError::field(
                    "stream_options.include_obfuscation",
                    "unsupported_value",
                    "include_obfuscation is not supported",
                ));
            }
            options.end()?;
            (usage, running)
        }
    };
    Ok(match (stream, usage) {
        (false, _) => DeliveryMode::Whole,
        // As in vLLM, the second option has no effect without the first.
        (true, (false, _)) => DeliveryMode::Stream,
        (true, (true, false)) => DeliveryMode::StreamWithUsage,
        (true, (true, true)) => DeliveryMode::StreamWithRunningUsage,
    })
}

/// Whether tokens are drafted.
fn speculation(fields: &mut Fields) -> Result<Speculation, ApiError> {
    let name = "speculation";
    let Some(found) = fields.string(name)? else {
        return Ok(Speculation::default());
    };
    found.parse().map_err(|reason: String| {
        ApiError::field(name, "unsupported_value", format!("{name} is {reason}"))
    })
}

/// Reads this server's own extension.
fn extension(fields: &mut Fields) -> Result<Extension, ApiError> {
    let Some(mut options) = fields.object("vispec")? else {
        return Ok(Extension::None);
    };
    let extension = match options.boolean("detail")? {
        Some(true) => Extension::Detail,
        Some(false) | None => Extension::None,
    };
    options.end()?;
    Ok(extension)
}

/// Adds the tools to the prompt, and returns it with the grammar of the answer.
fn with_tools(
    prompt: AnswerPrompt,
    asked: Option<AskedGrammar>,
    mut tools: AskedTools,
) -> Result<(AnswerPrompt, Option<AskedGrammar>), ApiError> {
    let prompt = match prompt {
        AnswerPrompt::Chat {
            messages,
            images,
            videos,
        } => AnswerPrompt::Chat {
            messages: messages.with_tools(std::mem::take(&mut tools.tools)),
            images,
            videos,
        },
        AnswerPrompt::Text(text) => AnswerPrompt::Text(text),
    };
    Ok((prompt, tools.grammar(asked)?))
}

/// Describes the type of a JSON value, for messages.
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
