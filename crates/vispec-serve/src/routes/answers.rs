//! The endpoints that answer: from a request through the queue to an object or a stream.

use std::convert::Infallible;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt as _, stream};
use serde_json::Value;
use vispec::{AnswerError, AnswerPrompt, AnswerRequest, ImageInput, Submission};

use super::App;
use super::body::read_json;
use crate::answering::{AnswerEvent, Answers, Pace};
use crate::api_error::ApiError;
use crate::client::Client;
use crate::remote_image::RemoteImage;
use crate::reply::{Choice, Endpoint, Reply, Usage};
use crate::request::{Delivery, DeliveryMode, Drafting, ParsedRequest, RemotePolicy, RequestRules};
use crate::request_memory::Room;

/// A request that waits for its answers.
struct Submitted {
    delivery: Delivery,
    choices: u32,
    answers: Answers,
}

/// Answers one request. Dropping the future or the response takes the request back.
pub(super) async fn answer(
    endpoint: Endpoint,
    State(app): State<App>,
    request: Request,
) -> Result<Response, ApiError> {
    match submit(endpoint, &app, request).await {
        Ok((submitted, ignored)) => {
            let mut response = deliver(&app, endpoint, submitted).await?;
            name_ignored(&mut response, &ignored);
            Ok(response)
        }
        Err(error) => {
            app.metrics.count(error.outcome());
            Err(error)
        }
    }
}

/// The header with the fields that were left out of a request.
pub(crate) const IGNORED: HeaderName = HeaderName::from_static("x-vispec-ignored");
/// Longest value of it.
const MAX_IGNORED_BYTES: usize = 1024;

/// Says which fields were left out.
fn name_ignored(response: &mut Response, ignored: &[String]) {
    let mut places = ignored.join(", ");
    // Names come from the client.
    places.retain(|symbol| symbol.is_ascii_graphic() || symbol == ' ');
    places.truncate(MAX_IGNORED_BYTES);
    if let Ok(places) = HeaderValue::try_from(places)
        && !ignored.is_empty()
    {
        response.headers_mut().insert(IGNORED, places);
    }
}

/// Puts a request in line; gives the fields that were left out of it, too.
async fn submit(
    endpoint: Endpoint,
    app: &App,
    request: Request,
) -> Result<(Submitted, Vec<String>), ApiError> {
    let limits = &app.options.request_limits;
    let client = request.extensions().get::<Client>().copied();
    let client = client.ok_or_else(lost)?;
    let mut room = Room::new(&app.memory, client);
    let body = read_json(request, limits, &mut room).await?;
    let rules = RequestRules {
        model_id: app.model.id(),
        defaults: &app.options.defaults,
        limits,
        remote: match &app.remote_images {
            None => RemotePolicy::Refuse,
            Some(_) => RemotePolicy::Fetch,
        },
        strictness: app.options.strictness,
    };
    let (parsed, ignored) = ParsedRequest::read_by_rules(endpoint, &body, rules)?;
    let ParsedRequest {
        mut answer,
        remote,
        choices,
        drafting,
        delivery,
    } = parsed;
    drop(body);
    fetch(app, &mut answer, remote, &mut room).await?;
    let pace = match delivery.mode {
        DeliveryMode::Whole => Pace::Whole,
        DeliveryMode::Stream | DeliveryMode::StreamWithUsage => Pace::Cycles,
    };
    let submission = match drafting {
        Drafting::Usual => answer.into(),
        Drafting::None => Submission::plain(answer),
    };
    let submission = Submission {
        client: client.number(),
        ..submission
    };
    let submitted = Submitted {
        delivery,
        choices,
        answers: app.answering.submit((submission, room), choices, pace)?,
    };
    Ok((submitted, ignored))
}

/// Puts images that have to be fetched in their places.
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

/// Waits for the answer to start, so that prompts that cannot be answered get a status of their
/// own, also if the answer is streamed.
async fn deliver(
    app: &App,
    endpoint: Endpoint,
    submitted: Submitted,
) -> Result<Response, ApiError> {
    let Submitted {
        delivery,
        choices,
        mut answers,
    } = submitted;
    let prompt_tokens = match answers.next().await {
        Some(AnswerEvent::Started(prompt_tokens)) => prompt_tokens,
        Some(AnswerEvent::Failed(error)) => return Err(not_started(endpoint, error)),
        Some(AnswerEvent::Cycle(..) | AnswerEvent::Finished(..)) | None => return Err(lost()),
    };
    let reply = Reply::new(endpoint, delivery, app.model.id(), prompt_tokens);
    match delivery.mode {
        DeliveryMode::Whole => Ok(Json(whole(&reply, choices, answers).await?).into_response()),
        DeliveryMode::Stream | DeliveryMode::StreamWithUsage => {
            let sse = Sse::new(chunks(reply, choices, answers)).keep_alive(KeepAlive::default());
            // Proxies that collect answers would defeat the stream.
            Ok(([("x-accel-buffering", "no")], sse).into_response())
        }
    }
}

/// Why there is no answer, with the field that it is about.
fn not_started(endpoint: Endpoint, error: AnswerError) -> ApiError {
    let field = match &error {
        AnswerError::Failed(_) | AnswerError::Busy { .. } | AnswerError::ShutDown => {
            return error.into();
        }
        // The one setting that only the model can check, because it knows the tokens.
        AnswerError::Refused { code, .. } if *code == "invalid_value" => "logit_bias",
        AnswerError::Refused { .. } | AnswerError::TooLarge { .. } => endpoint.prompt_field(),
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

/// Answers that are being streamed, side by side.
struct Streamed {
    reply: Reply,
    answers: Answers,
    /// Answers that have not ended.
    left: u32,
    /// Characters of the tokens of each answer whose log-probabilities were told.
    text_lens: Vec<usize>,
    usage: Usage,
}

impl Streamed {
    /// What the next event means to the client, and whether more will come.
    async fn next(&mut self) -> (Vec<Event>, bool) {
        match self.answers.next().await {
            Some(AnswerEvent::Started(_)) => (Vec::new(), true),
            Some(AnswerEvent::Cycle(index, cycle)) => {
                let Some(text_len) = self.text_lens.get_mut(index as usize) else {
                    return (vec![data(&lost().body())], false);
                };
                let chunk = self.reply.cycle_chunk(index, &cycle, *text_len);
                let tokens = cycle.log_probs.iter();
                let told: usize = tokens.map(|token| token.token.chars().count()).sum();
                *text_len += told;
                (chunk.iter().map(data).collect(), true)
            }
            Some(AnswerEvent::Finished(index, answered)) => {
                self.usage.add(&answered);
                let mut out = vec![data(&self.reply.last_chunk(index, &answered))];
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

/// The chunks of all answers; an error ends the stream in place of `[DONE]`.
fn chunks(
    reply: Reply,
    choices: u32,
    answers: Answers,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let first = (0..choices).filter_map(|index| reply.first_chunk(index));
    let first = Vec::from_iter(first.map(|chunk| data(&chunk)));
    let streamed = Streamed {
        reply,
        answers,
        left: choices,
        text_lens: vec![0; choices as usize],
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

/// The model has gone without a word.
fn lost() -> ApiError {
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "model_failed",
        "the answer was lost",
    )
}
