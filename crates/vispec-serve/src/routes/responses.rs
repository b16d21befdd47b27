//! `/v1/responses`: from a request through the queue to a response or its events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::{Stream, StreamExt as _, stream};
use serde_json::Value;

use super::answers::{Asked, lost, name_ignored, not_started, received, submitted};
use crate::answering::{AnswerEvent, Answers};
use crate::api_error::ApiError;
use crate::app::App;
use crate::reply::{ResponseEvent, ResponseReply};
use crate::request::{DeliveryMode, ParsedResponse};
use crate::response_store::ResponseStore;

/// Answers one request. Dropping the future or the response cancels the request.
pub(super) async fn respond(
    State(app): State<App>,
    request: Request,
) -> Result<Response, ApiError> {
    match submit(&app, request).await {
        Ok((submitted, ignored)) => {
            let mut response = deliver(&app, submitted).await?;
            name_ignored(&mut response, &ignored);
            Ok(response)
        }
        Err(error) => {
            app.metrics.count(error.outcome());
            Err(error)
        }
    }
}

/// A request that is waiting for its answer, with the data that its response needs.
struct Submitted {
    asked: Asked,
    repeated: serde_json::Map<String, Value>,
    conversation: Option<Vec<Value>>,
}

async fn submit(app: &App, request: Request) -> Result<(Submitted, Vec<String>), ApiError> {
    let (body, room) = received(app, request).await?;
    let (parsed, ignored) = ParsedResponse::read_by_rules(&body, app.rules(), &app.responses)?;
    drop(body);
    let submitted = Submitted {
        asked: submitted(app, parsed.asked, room).await?,
        repeated: parsed.repeated,
        conversation: parsed.conversation,
    };
    Ok((submitted, ignored))
}

async fn deliver(app: &App, submitted: Submitted) -> Result<Response, ApiError> {
    let Submitted {
        asked,
        repeated,
        conversation,
    } = submitted;
    let Asked {
        delivery,
        grammar_field,
        mut answers,
        ..
    } = asked;
    let prompt_tokens = match answers.next().await {
        Some(AnswerEvent::Started(prompt_tokens)) => prompt_tokens,
        Some(AnswerEvent::Failed(error)) => {
            return Err(not_started("input", grammar_field.as_deref(), error));
        }
        Some(AnswerEvent::Cycle(..) | AnswerEvent::Finished(..)) | None => return Err(lost()),
    };
    let (id, model) = (app.responses.new_id(), app.model.id());
    let growing = Growing {
        reply: ResponseReply::new(id, model, prompt_tokens, repeated, delivery.calls),
        answers,
        conversation,
        store: Arc::clone(&app.responses),
    };
    if delivery.mode == DeliveryMode::Whole {
        return Ok(Json(growing.whole().await?).into_response());
    }
    let sse = Sse::new(growing.events()).keep_alive(KeepAlive::default());
    Ok(([("x-accel-buffering", "no")], sse).into_response())
}

/// A response under construction.
struct Growing {
    reply: ResponseReply,
    answers: Answers,
    conversation: Option<Vec<Value>>,
    store: Arc<ResponseStore>,
}

/// Result of the next event of the answer.
enum Grown {
    More(Vec<ResponseEvent>),
    Ended(Vec<ResponseEvent>, Value),
    Failed(ApiError),
}

impl Growing {
    async fn next(&mut self) -> Grown {
        match self.answers.next().await {
            Some(AnswerEvent::Started(_)) => Grown::More(Vec::new()),
            Some(AnswerEvent::Cycle(_, cycle)) => Grown::More(self.reply.take(&cycle.text())),
            Some(AnswerEvent::Finished(_, answered)) => {
                let (events, response) = self.reply.end(&answered);
                if let Some(mut conversation) = self.conversation.take() {
                    conversation.push(self.reply.as_message());
                    self.store.keep(self.reply.id(), conversation);
                }
                Grown::Ended(events, response)
            }
            Some(AnswerEvent::Failed(error)) => Grown::Failed(error.into()),
            None => Grown::Failed(lost()),
        }
    }

    async fn whole(mut self) -> Result<Value, ApiError> {
        loop {
            match self.next().await {
                Grown::More(_) => {}
                Grown::Ended(_, response) => return Ok(response),
                Grown::Failed(error) => return Err(error),
            }
        }
    }

    fn events(mut self) -> impl Stream<Item = Result<Event, Infallible>> {
        let first = self.reply.begin();
        let rest = stream::unfold(Some(self), async |growing| {
            let mut growing = growing?;
            Some(match growing.next().await {
                Grown::More(events) => (stream::iter(events), Some(growing)),
                Grown::Ended(events, _) => (stream::iter(events), None),
                Grown::Failed(error) => {
                    let event = growing.reply.fail(error.message());
                    (stream::iter(vec![event]), None)
                }
            })
        });
        let events = stream::iter(first).chain(rest.flatten());
        events.map(|(name, data)| Ok(Event::default().event(name).data(data.to_string())))
    }
}
