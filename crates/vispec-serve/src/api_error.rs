//! Errors in the format that clients of the API expect: a status, and an object with the reason.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use vispec::AnswerError;

use crate::metrics::Outcome;
use crate::request_memory::NoRoom;

/// An error for a client. It never holds a path or other information about the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    status: StatusCode,
    message: String,
    /// Field of the request at fault.
    param: Option<String>,
    /// Short name for programs.
    code: &'static str,
    /// Seconds after which a retry makes sense.
    retry_after: Option<u64>,
}

impl ApiError {
    /// Creates an error with this status.
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
            code,
            retry_after: None,
        }
    }

    /// Creates an error about an invalid field; the message says what was found and expected.
    pub(crate) fn field(param: &str, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            param: Some(param.to_owned()),
            ..Self::new(StatusCode::BAD_REQUEST, code, message)
        }
    }

    /// Returns the same error, attributed to a field.
    pub(crate) fn about(self, param: &str) -> Self {
        Self {
            param: Some(param.to_owned()),
            ..self
        }
    }

    /// Returns the same error with another status.
    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The field at fault.
    pub(crate) fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }

    /// The message.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The short name.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// The `error` object with its envelope.
    pub(crate) fn body(&self) -> Value {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        json!({"error": {
            "message": self.message,
            "type": kind,
            "param": self.param,
            "code": self.code,
        }})
    }

    /// The outcome to count, for requests that did not reach the queue.
    pub(crate) fn outcome(&self) -> Outcome {
        match self.code {
            "queue_full" | "memory_full" => Outcome::Busy,
            "shutting_down" => Outcome::ShutDown,
            _ => Outcome::Refused,
        }
    }

    /// The client has reached its maximum number of connections.
    pub(crate) fn too_many_connections(most: usize) -> Self {
        Self::busy(
            "too_many_connections",
            format!("the client has {most} connections already; try again when one is closed"),
        )
    }

    /// The server has no room at the moment; the client should retry later.
    fn busy(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            retry_after: Some(1),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, code, message)
        }
    }

    /// The server is shutting down.
    pub(crate) fn shutting_down() -> Self {
        Self {
            retry_after: Some(5),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "shutting_down",
                "the server is shutting down",
            )
        }
    }
}

impl From<AnswerError> for ApiError {
    fn from(error: AnswerError) -> Self {
        match error {
            AnswerError::Refused { message, code } => {
                Self::new(StatusCode::BAD_REQUEST, code, message)
            }
            AnswerError::TooLarge { .. } => Self::new(
                StatusCode::BAD_REQUEST,
                "answer_too_large",
                error.to_string(),
            ),
            AnswerError::SpeculationUnavailable { .. } => Self::new(
                StatusCode::BAD_REQUEST,
                "speculation_unavailable",
                error.to_string(),
            ),
            AnswerError::GrammarTooComplex(_) => Self::new(
                StatusCode::BAD_REQUEST,
                "grammar_too_complex",
                error.to_string(),
            ),
            AnswerError::Busy { retry_after, .. } => Self {
                retry_after: Some(retry_after.as_secs()),
                ..Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "queue_full",
                    "the queue is full; try again later",
                )
            },
            AnswerError::ShutDown => Self::shutting_down(),
            AnswerError::Failed(_) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "model_failed",
                "the model failed; see the server's log",
            ),
        }
    }
}

impl From<NoRoom> for ApiError {
    fn from(reason: NoRoom) -> Self {
        let (whose, limit) = match reason {
            NoRoom::Full(limit) => ("all requests", limit),
            NoRoom::ClientFull(limit) => ("the requests of this client", limit),
        };
        Self::busy(
            "memory_full",
            format!(
                "with this request {whose} would hold more than the limit of {limit} bytes; \
                 try again later"
            ),
        )
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}
