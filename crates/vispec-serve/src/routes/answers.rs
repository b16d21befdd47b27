//! Endpoints that answer: from a request through the queue to an object or a stream.

use std::convert::Infallible;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt as _, stream};
use serde_json::Value;
use vispec::{AnswerCycle, AnswerError, AnswerPrompt, AnswerRequest, ImageInput, Submission};

use super::body::read_json;
use crate::answering::{AnswerEvent, Answers, Pace};
use crate::api_error::ApiError;
use crate::app::App;
use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::headers::IGNORED;
use crate::remote_image::RemoteImage;
use crate::reply::{Choice, Reply, Usage};
use crate::request::{Calls, Delivery, DeliveryMode, ParsedRequest};
use crate::request_memory::Room;
use crate::tool_calls::{CallScanner, Said};

/// A request that is waiting for its answers.
pub(super) struct Asked {
    pub(super) delivery: Delivery,
    /// Location of the field that defines the format of the answers, if any.
    pub(super) grammar_field: Option<String>,
    choices: u32,
    pub(super) answers: Answers,
}

/// Answers one request. Dropping the future or the response cancels the request.
pub(super) async fn answer(
    endpoint: Endpoint,
    State(app): State<App>,
    request: Request,
) -> Result<Response, ApiError> {
    match submit(endpoint, &app, request).await {
        Ok((asked, ignored)) => {
            let mut response = deliver(&app, endpoint, asked).await?;
            name_ignored(&mut response, &ignored);
            Ok(response)
        }
        Err(error) => {
            app.metrics.count(error.outcome());
            Err(error)
        }
    }
}

/// Maximum length of the value of [`IGNORED`].
const MAX_IGNORED_BYTES: usize = 1024;

/// Adds the header with the ignored fields.
pub(super) fn name_ignored(response: &mut Response, ignored: &[String]) {
    let mut places = ignored.join(", ");
    // The names come from the client.
    places.retain(|symbol| symbol.is_ascii_graphic() || symbol == ' ');
    places.truncate(MAX_IGNORED_BYTES);
    if let Ok(places) = HeaderValue::try_from(places)
        && !ignored.is_empty()
    {
        response.headers_mut().insert(IGNORED, places);
    }
}

/// Queues a request; also returns its ignored fields.
async fn submit(
    endpoint: Endpoint,
    app: &App,
    request: Request,
) -> Result<(Asked, Vec<String>), ApiError> {
    let (body, room) = received(app, request).await?;
    let (parsed, ignored) = ParsedRequest::read_by_rules(endpoint, &body, app.rules())?;
    drop(body);
    Ok((submitted(app, parsed, room).await?, ignored))
}

/// The memory that a request holds, and its client.
pub(super) struct Guest {
    room: Room,
    client: Client,
}

/// Reads the body of a request and reserves memory for it.
pub(super) async fn received(app: &App, request: Request) -> Result<(Vec<u8>, Guest), ApiError> {
    let client = request.extensions().get::<Client>().copied();
    let client = client.ok_or_else(lost)?;
    let mut room = Room::new(&app.memory, client);
    let body = read_json(request, &app.options.request_limits, &mut room).await?;
    Ok((body, Guest { room, client }))
}

/// Fetches remote images and submits the request to the model.
pub(super) async fn submitted(
    app: &App,
    parsed: ParsedRequest,
    Guest { mut room, client }: Guest,
) -> Result<Asked, ApiError> {
    let ParsedRequest {
        mut answer,
        remote,
        grammar_field,
        choices,
        speculation,
        delivery,
    } = parsed;
    fetch(app, &mut answer, remote, &mut room).await?;
    if let AnswerPrompt::Chat { videos, .. } = &answer.prompt {
        app.metrics.shown(videos.len());
    }
    let pace = match delivery.mode {
        DeliveryMode::Whole => Pace::Whole,
        DeliveryMode::Stream
        | DeliveryMode::StreamWithUsage
        | DeliveryMode::StreamWithRunningUsage => Pace::Cycles,
    };
    let submission = Submission {
        client: client.number(),
        speculation,
        ..answer.into()
    };
    Ok(Asked {
        delivery,
        grammar_field,
        choices,
        answers: app.answering.submit((submission, room), choices, pace)?,
    })
}

/// Fetches remote images and puts them in their places.
async fn fetch(
    app: &App,
    request: &mut AnswerRequest,
    remote: Vec<(usize, RemoteImage)>,
    room: &mut Room,
) -> Result<(), ApiError> {
    let (Some(client), AnswerPrompt::Chat { images, .. }) =
        (&app.remote_images, &mut request.prompt)
    else {
        return Ok(());
    };
    for (place, image) in remote {
        images[place] = ImageInput::File(client.fetch(&image, room).await?);
    }
    Ok(())
}

/// Waits for the answer to start, so that prompts that cannot be answered get an error status, even
/// if the answer is streamed.
async fn deliver(app: &App, endpoint: Endpoint, asked: Asked) -> Result<Response, ApiError> {
    let Asked {
        delivery,
        grammar_field,
        choices,
        mut answers,
    } = asked;
    let grammar_field = grammar_field.as_deref();
    let prompt_tokens = match answers.next().await {
        Some(AnswerEvent::Started(prompt_tokens)) => prompt_tokens,
        Some(AnswerEvent::Failed(error)) => {
            return Err(not_started(endpoint.prompt_field(), grammar_field, error));
        }
        Some(AnswerEvent::Cycle(..) | AnswerEvent::Finished(..)) | None => return Err(lost()),
    };
    let reply = Reply::new(endpoint, delivery, app.model.id(), prompt_tokens);
    match delivery.mode {
        DeliveryMode::Whole => Ok(Json(whole(&reply, choices, answers).await?).into_response()),
        DeliveryMode::Stream
        | DeliveryMode::StreamWithUsage
        | DeliveryMode::StreamWithRunningUsage => {
            let sse = Sse::new(chunks(reply, choices, answers)).keep_alive(KeepAlive::default());
            // Proxies that buffer answers would defeat streaming.
            Ok(([("x-accel-buffering", "no")], sse).into_response())
        }
    }
}

/// Returns the error of an answer that did not start, with the field that it refers to.
pub(super) fn not_started(
    prompt_field: &str,
    grammar_field: Option<&str>,
    error: AnswerError,
) -> ApiError {
    let field = match &error {
        AnswerError::Failed(_) | AnswerError::Busy { .. } | AnswerError::ShutDown => {
            return error.into();
        }
        // Only the model can check this setting, because it knows the tokens.
        AnswerError::Refused { code, .. } if *code == "invalid_value" => "logit_bias",
        AnswerError::Refused {
            code: "tools_unsupported" | "invalid_tools",
            ..
        } => "tools",
        AnswerError::Refused { code, .. } if *code == "invalid_grammar" => {
            grammar_field.unwrap_or("response_format")
        }
        AnswerError::SpeculationUnavailable { .. } => "speculation",
        AnswerError::GrammarTooComplex(_) => grammar_field.unwrap_or("response_format"),
        AnswerError::Refused { .. } | AnswerError::TooLarge { .. } => prompt_field,
    };
    ApiError::from(error).about(field)
}

async fn whole(reply: &Reply, choices: u32, mut answers: Answers) -> Result<Value, ApiError> {
    let mut told = Vec::from_iter((0..choices).map(|_| Choice::default()));
    let mut left = choices;
    while left > 0 {
        match answers.next().await {
            Some(AnswerEvent::Started(_)) => {}
            Some(AnswerEvent::Cycle(index, cycle)) => {
                let choice = told.get_mut(index as usize).ok_or_else(lost)?;
                choice.text.push_str(&cycle.text());
                choice.log_probs.extend(cycle.log_probs);
            }
            Some(AnswerEvent::Finished(index, answered)) => {
                let choice = told.get_mut(index as usize).ok_or_else(lost)?;
                choice.answered = Some(*answered);
                left -= 1;
            }
            Some(AnswerEvent::Failed(error)) => return Err(error.into()),
            None => return Err(lost()),
        }
    }
    Ok(reply.whole(&told))
}

/// How much of a streamed answer has been sent.
#[derive(Default)]
struct Told {
    /// Tokens of the answer.
    tokens: usize,
    /// Characters of the tokens whose log-probabilities were sent.
    text_len: usize,
    /// Finds calls, if tools may be called.
    scanner: Option<CallScanner>,
    n_calls: usize,
}

impl Told {
    /// Returns the text in a piece and the chunks of the calls in it; `None` means the end.
    fn take(&mut self, reply: &Reply, index: u32, piece: Option<&str>) -> (String, Vec<Event>) {
        let said = match (&mut self.scanner, piece) {
            (None, piece) => return (piece.unwrap_or_default().to_owned(), Vec::new()),
            (Some(scanner), Some(piece)) => scanner.push(piece),
            (Some(scanner), None) => scanner.finish(),
        };
        let (mut text, mut chunks) = (String::new(), Vec::new());
        for said in said {
            match said {
                Said::Text(more) => text.push_str(&more),
                Said::Call(call) => {
                    let chunk = reply.call_chunk(index, self.n_calls, &call);
                    chunks.push(data(&reply.counted(chunk, self.tokens)));
                    self.n_calls += 1;
                }
            }
        }
        (text, chunks)
    }
}

/// Answers that are being streamed in parallel.
struct Streamed {
    reply: Reply,
    answers: Answers,
    /// Answers that have not ended.
    left: u32,
    /// Progress of each answer.
    told: Vec<Told>,
    usage: Usage,
}

impl Streamed {
    /// Returns the client's events for the next event of the answers, and whether more follow.
    async fn next(&mut self) -> (Vec<Event>, bool) {
        match self.answers.next().await {
            Some(AnswerEvent::Started(_)) => (Vec::new(), true),
            Some(AnswerEvent::Cycle(index, cycle)) => {
                let Some(told) = self.told.get_mut(index as usize) else {
                    return (vec![data(&lost().body())], false);
                };
                told.tokens += cycle.tokens;
                let (text, calls) = told.take(&self.reply, index, Some(&cycle.text()));
                let chunk = self.reply.cycle_chunk(index, &cycle, &text, told.text_len);
                let chunk = chunk.map(|chunk| self.reply.counted(chunk, told.tokens));
                let tokens = cycle.log_probs.iter();
                let chars: usize = tokens.map(|token| token.token.chars().count()).sum();
                told.text_len += chars;
                let chunk = chunk.iter().map(data);
                (chunk.chain(calls).collect(), true)
            }
            Some(AnswerEvent::Finished(index, answered)) => {
                self.usage.add(&answered);
                let Some(told) = self.told.get_mut(index as usize) else {
                    return (vec![data(&lost().body())], false);
                };
                let (text, calls) = told.take(&self.reply, index, None);
                let nothing = AnswerCycle::default();
                let rest = Some(text).filter(|text| !text.is_empty());
                let rest = rest.and_then(|text| self.reply.cycle_chunk(index, &nothing, &text, 0));
                let rest = rest.map(|chunk| self.reply.counted(chunk, told.tokens));
                let mut out = Vec::from_iter(rest.iter().map(data).chain(calls));
                let last = self.reply.last_chunk(index, &answered, told.n_calls);
                out.push(data(&self.reply.counted(last, told.tokens)));
                self.left = self.left.saturating_sub(1);
                if self.left > 0 {
                    return (out, true);
                }
                out.extend(self.reply.usage_chunk(&self.usage).iter().map(data));
                out.push(Event::default().data("[DONE]"));
                (out, false)
            }
            Some(AnswerEvent::Failed(error)) => (vec![data(&ApiError::from(error).body())], false),
            None => (vec![data(&lost().body())], false),
        }
    }
}

/// Returns the chunks of all answers; after an error, the stream ends without `[DONE]`.
fn chunks(
    reply: Reply,
    choices: u32,
    answers: Answers,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let told = (0..choices).map(|_| Told {
        scanner: match reply.calls() {
            Calls::Told => Some(CallScanner::default()),
            Calls::Text => None,
        },
        ..Told::default()
    });
    let told = told.collect();
    let first = (0..choices).filter_map(|index| reply.first_chunk(index));
    let first = Vec::from_iter(first.map(|chunk| data(&chunk)));
    let streamed = Streamed {
        reply,
        answers,
        left: choices,
        told,
        usage: Usage::default(),
    };
    let rest = stream::unfold(Some(streamed), async |state| {
        let mut streamed = state?;
        let (out, goes_on) = streamed.next().await;
        Some((stream::iter(out), goes_on.then_some(streamed)))
    });
    stream::iter(first).chain(rest.flatten()).map(Ok)
}

fn data(value: &Value) -> Event {
    Event::default().data(value.to_string())
}

/// Error for a model that stopped without a result.
pub(super) fn lost() -> ApiError {
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "model_failed",
        "the answer was lost",
    )
}
