//! Probes: whether the server is alive, and whether it accepts requests.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use vispec::SchedulerFigures;

use super::App;
use crate::api_error::ApiError;

/// How long answers may run without a pass of the model before the server counts as stuck. The
/// longest passes of large models on slow machines take a few seconds.
const STUCK: Duration = Duration::from_secs(300);

/// The time of the model's last observed progress.
#[derive(Debug, Clone)]
pub(crate) struct Pulse(Arc<Mutex<(u64, Instant)>>);

impl Pulse {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new((0, Instant::now()))))
    }

    /// How long answers have been running without a pass, as far as observed.
    fn since_pass(&self, figures: SchedulerFigures, now: Instant) -> Duration {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if figures.running == 0 || figures.passes != seen.0 {
            *seen = (figures.passes, now);
        }
        now.duration_since(seen.1)
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_counts_while_answers_run_without_a_pass() {
        let pulse = Pulse::new();
        let start = Instant::now();
        let figures = |running, passes| SchedulerFigures {
            running,
            passes,
            ..SchedulerFigures::default()
        };
        let at = |seconds| start + Duration::from_secs(seconds);
        let since = |running, passes, seconds| {
            pulse
                .since_pass(figures(running, passes), at(seconds))
                .as_secs()
        };
        assert_eq!(since(0, 0, 1000), 0);
        assert_eq!(since(1, 0, 1200), 200);
        assert_eq!(since(1, 5, 1300), 0);
        assert_eq!(since(2, 5, 1900), 600);
        assert_eq!(since(0, 5, 2000), 0);
        assert_eq!(since(1, 5, 2001), 1);
    }
}
