//! The endpoints that answer: from a request through the queue to an object or a stream.

use std::convert::Infallible;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::{Stream, StreamExt as _, stream};
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;

use super::App;
use super::body::read_json;
use crate::api_error::ApiError;
use crate::queue::AnswerEvent;
use crate::reply::{Endpoint, Reply};
use crate::request::{Delivery, DeliveryMode, ParsedRequest, RequestRules};

type Events = UnboundedReceiver<AnswerEvent>;

/// Answers one request. Dropping the future or the response takes the request back.
pub(super) async fn answer(
    endpoint: Endpoint,
    State(app): State<App>,
    request: Request,
) -> Result<Response, ApiError> {
    match submit(endpoint, &app, request).await {
        Ok((delivery, events)) => deliver(&app, (endpoint, delivery), events).await,
        Err(error) => {
            app.metrics.count(error.outcome());
            Err(error)
        }
    }
}

async fn submit(
    endpoint: Endpoint,
    app: &App,
    request: Request,
) -> Result<(Delivery, Events), ApiError> {
    let limits = &app.options.request_limits;
    let (body, _room) = read_json(request, limits, &app.body_memory).await?;
    let rules = RequestRules {
        model_id: app.model.id(),
        defaults: &app.options.defaults,
        limits,
    };
    let parsed = ParsedRequest::read(endpoint, &body, rules)?;
    Ok((parsed.delivery, app.queue.submit(parsed.answer)?))
}

/// Waits for the answer to start, so that prompts that cannot be answered get a status of their
/// own, also if the answer is streamed.
async fn deliver(
    app: &App,
    (endpoint, delivery): (Endpoint, Delivery),
    mut events: Events,
) -> Result<Response, ApiError> {
    let prompt_tokens = match events.recv().await {
        Some(AnswerEvent::Started(prompt_tokens)) => prompt_tokens,
        Some(AnswerEvent::Failed(error)) => return Err(error.into()),
        Some(AnswerEvent::ShutDown) => return Err(ApiError::shutting_down()),
        Some(AnswerEvent::Cycle(_) | AnswerEvent::Finished(_)) | None => return Err(lost()),
    };
    let reply = Reply::new(endpoint, delivery, app.model.id(), prompt_tokens);
    match delivery.mode {
        DeliveryMode::Whole => Ok(Json(whole(&reply, events).await?).into_response()),
        DeliveryMode::Stream | DeliveryMode::StreamWithUsage => {
            let sse = Sse::new(chunks(reply, events)).keep_alive(KeepAlive::default());
            // Proxies that collect answers would defeat the stream.
            Ok(([("x-accel-buffering", "no")], sse).into_response())
        }
    }
}

async fn whole(reply: &Reply, mut events: Events) -> Result<Value, ApiError> {
    let mut text = String::new();
    while let Some(event) = events.recv().await {
        match event {
            AnswerEvent::Started(_) => {}
            AnswerEvent::Cycle(cycle) => {
                text.extend(cycle.pieces.into_iter().map(|piece| piece.text));
            }
            AnswerEvent::Finished(answered) => return Ok(reply.whole(&text, &answered)),
            AnswerEvent::Failed(error) => return Err(error.into()),
            AnswerEvent::ShutDown => return Err(ApiError::shutting_down()),
        }
    }
    Err(lost())
}

/// The chunks of an answer; an error ends the stream in place of `[DONE]`.
fn chunks(reply: Reply, events: Events) -> impl Stream<Item = Result<Event, Infallible>> {
    let first = reply.first_chunk().map(|chunk| data(&chunk));
    let rest = stream::unfold(Some((reply, events)), async |state| {
        let (reply, mut events) = state?;
        let (out, goes_on) = match events.recv().await {
            Some(AnswerEvent::Started(_)) => (Vec::new(), true),
            Some(AnswerEvent::Cycle(cycle)) => {
                let chunk = reply.cycle_chunk(&cycle);
                (chunk.iter().map(data).collect(), true)
            }
            Some(AnswerEvent::Finished(answered)) => {
                let chunks = reply.last_chunks(&answered);
                let mut out = Vec::from_iter(chunks.iter().map(data));
                out.push(Event::default().data("[DONE]"));
                (out, false)
            }
            Some(AnswerEvent::Failed(error)) => (vec![data(&ApiError::from(error).body())], false),
            Some(AnswerEvent::ShutDown) => (vec![data(&ApiError::shutting_down().body())], false),
            None => (vec![data(&lost().body())], false),
        };
        Some((stream::iter(out), goes_on.then_some((reply, events))))
    });
    stream::iter(first).chain(rest.flatten()).map(Ok)
}

fn data(value: &Value) -> Event {
    Event::default().data(value.to_string())
}

/// The worker has gone without a word.
fn lost() -> ApiError {
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "model_failed",
        "the answer was lost",
    )
}
