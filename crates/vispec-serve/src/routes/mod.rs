//! The routes of the server.

mod answers;
mod body;
mod head;
mod held_back;
mod page;
mod probes;
mod responses;
mod tokens;

pub(crate) use head::MAX_PARSED_HEADERS;

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use serde_json::{Value, json};

use crate::access_log;
use crate::api_error::ApiError;
use crate::api_key;
use crate::app::App;
use crate::cors;
use crate::endpoint::Endpoint;

/// All endpoints, for the message about unknown paths.
const PLACES: &str = "POST /v1/chat/completions, POST /v1/responses, POST /v1/completions, \
    GET /v1/models, GET /v1/models/NAME, POST /tokenize, POST /detokenize, GET /version, \
    GET /health, GET /livez, GET /readyz, GET /metrics or GET /";

/// All routes.
pub(crate) fn router(app: App) -> Router {
    let chat = |state, request| answers::answer(Endpoint::Chat, state, request);
    let completion = |state, request| answers::answer(Endpoint::Completion, state, request);
    let protected = Router::new()
        .route("/v1/chat/completions", post(chat))
        .route("/v1/completions", post(completion))
        .route("/v1/responses", post(responses::respond))
        .route("/v1/embeddings", post(tokens::embeddings))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .route("/version", get(tokens::version))
        .route("/v1/models", get(models))
        // Names of models may contain slashes.
        .route("/v1/models/{*id}", get(model))
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn_with_state(app.clone(), api_key::check))
        .layer(middleware::from_fn_with_state(
            Arc::<held_back::Refusals>::default(),
            held_back::layer,
        ));
    let cors = cors::layer(&app.options.cors_origins);
    let router = Router::new()
        .route("/health", get(probes::health))
        .route("/livez", get(probes::alive))
        .route("/readyz", get(probes::ready))
        .merge(page::router())
        .merge(protected)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(head::check));
    let router = match cors {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router
        .layer(middleware::from_fn(access_log::layer))
        .with_state(app)
}

fn describe(app: &App) -> Value {
    json!({
        "id": app.model.id(),
        "object": "model",
        "created": app.started,
        "owned_by": "vispec",
        "max_model_len": app.model.context_len(),
    })
}

async fn models(State(app): State<App>) -> Json<Value> {
    Json(json!({"object": "list", "data": [describe(&app)]}))
}

async fn model(
    State(app): State<App>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Value>, ApiError> {
    let Path(id) = id.map_err(|_| {
        ApiError::new(
            StatusCode::BAD_REQUEST,
            "invalid_path",
            "the path is not valid UTF-8",
        )
    })?;
    if id == app.model.id() {
        return Ok(Json(describe(&app)));
    }
    Err(ApiError::new(
        StatusCode::NOT_FOUND,
        "model_not_found",
        format!(
            "the model {id:?} is not served, expected {:?}",
            app.model.id()
        ),
    ))
}

async fn metrics(State(app): State<App>) -> Result<impl IntoResponse, ApiError> {
    let text = app
        .metrics
        .render(
            app.model.scheduler_figures(),
            (
                app.model.kept_conversations(),
                app.model.kept_images(),
                app.model.earlier_answers(),
            ),
            app.memory.held(),
        )
        .map_err(|_| {
            ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "metrics_failed",
                "the metrics cannot be encoded",
            )
        })?;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], text))
}

async fn not_found() -> ApiError {
    ApiError::new(
        StatusCode::NOT_FOUND,
        "not_found",
        format!("this path does not exist, expected {PLACES}"),
    )
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this path does not support this method",
    )
}
