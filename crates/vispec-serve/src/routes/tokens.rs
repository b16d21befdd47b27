//! `/tokenize` and `/detokenize`, as in vLLM, and `/version`.

use axum::Json;
use axum::extract::{Request, State};
use serde_json::{Value, json};
use vispec::AnswerPrompt;

use super::answers::{lost, not_started, received};
use crate::api_error::ApiError;
use crate::app::App;
use crate::request::{read_detokenize, read_tokenize};

/// Returns the tokens of a text, or of a chat without images.
pub(super) async fn tokenize(
    State(app): State<App>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let (body, room) = received(&app, request).await?;
    let prompt = read_tokenize(&body, app.rules())?;
    let field = match &prompt {
        AnswerPrompt::Chat { .. } => "messages",
        AnswerPrompt::Text(_) => "prompt",
    };
    let model = app.model.clone();
    // One at a time: a long text takes a while, and several times its size in memory.
    let _turn = app.tokenizing.lock().await;
    let counted = tokio::task::spawn_blocking(move || {
        let _room = room;
        model.tokenize(&prompt)
    });
    let tokens = counted.await.map_err(|_| lost())?;
    let tokens = tokens.map_err(|error| not_started(field, None, error))?;
    Ok(Json(json!({
        "count": tokens.len(),
        "max_model_len": app.model.context_len(),
        "tokens": tokens,
        "token_strs": null,
    })))
}

/// Returns the text of tokens.
pub(super) async fn detokenize(
    State(app): State<App>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let (body, _room) = received(&app, request).await?;
    let tokens = read_detokenize(&body, app.rules())?;
    let text = app.model.detokenize(&tokens);
    let text = text.map_err(|error| not_started("tokens", None, error))?;
    Ok(Json(json!({"prompt": text})))
}

/// Returns the version of the server.
pub(super) async fn version() -> Json<Value> {
    Json(json!({"version": env!("CARGO_PKG_VERSION")}))
}

/// Refuses requests for embeddings.
pub(super) async fn embeddings() -> ApiError {
    ApiError::new(
        axum::http::StatusCode::BAD_REQUEST,
        "embeddings_unsupported",
        "this server does not support embeddings: its model only generates text",
    )
}
