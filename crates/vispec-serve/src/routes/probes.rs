//! Probes: whether the server is alive, and whether it accepts requests.

use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::api_error::ApiError;
use crate::app::App;

/// How long answers may run without a pass of the model before the server counts as stuck. The
/// longest passes of large models on slow machines take a few seconds.
const STUCK: Duration = Duration::from_secs(300);

/// Succeeds while the server runs, whatever it is waiting for.
pub(super) async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

/// Succeeds if the model makes progress with its answers.
pub(super) async fn alive(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    let figures = app.model.scheduler_figures();
    let since = app.pulse.since_pass(figures, Instant::now());
    if since < STUCK {
        return Ok(health().await);
    }
    tracing::error!(seconds = since.as_secs(), "the model makes no progress");
    Err(ApiError::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "stuck",
        format!("answers are running, but the model has made no pass for {since:.0?}"),
    ))
}

/// Succeeds if requests are accepted.
pub(super) async fn ready(State(app): State<App>) -> Result<Json<Value>, ApiError> {
    if app.answering.is_open() {
        return Ok(health().await);
    }
    Err(ApiError::shutting_down())
}
