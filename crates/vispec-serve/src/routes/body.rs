//! Reading the body of a request, within limits of type, size and time.

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as _;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::api_error::ApiError;
use crate::limits::RequestLimits;

/// Memory for bodies that arrive, shared by all connections: in places of 1 KiB, so many times the
/// largest body.
const LARGEST_BODIES: usize = 8;

/// Bounds what bodies that arrive at the same time take together.
#[derive(Debug)]
pub(crate) struct BodyMemory(Semaphore);

impl BodyMemory {
    /// Room for eight of the largest bodies.
    pub(crate) fn new(limits: &RequestLimits) -> Self {
        let places = LARGEST_BODIES * usize::try_from(places(limits.max_body)).unwrap_or(1);
        Self(Semaphore::new(places.min(Semaphore::MAX_PERMITS)))
    }

    /// Waits for room for a body of so many bytes.
    async fn room(&self, length: usize) -> Option<SemaphorePermit<'_>> {
        self.0.acquire_many(places(length)).await.ok()
    }
}

/// The most that a body can bring: what its head says, or else the limit.
fn longest(request: &Request, max_body: usize) -> usize {
    let length = request.body().size_hint().upper();
    let length = length.and_then(|length| usize::try_from(length).ok());
    length.map_or(max_body, |length| length.min(max_body))
}

fn places(bytes: usize) -> u32 {
    u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX)
}

/// The body of a JSON request, and the room that it takes.
///
/// # Errors
/// Status 415, 413, 408 or 400.
pub(super) async fn read_json<'a>(
    request: Request,
    limits: &RequestLimits,
    memory: &'a BodyMemory,
) -> Result<(Bytes, Option<SemaphorePermit<'a>>), ApiError> {
    check_type(&request)?;
    let length = longest(&request, limits.max_body);
    let body = Limited::new(request.into_body(), limits.max_body);
    let body = async {
        let room = memory.room(length).await;
        (body.collect().await, room)
    };
    match tokio::time::timeout(limits.body_timeout, body).await {
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "request_timeout",
            "the body did not arrive in time",
        )),
        Ok((Err(error), _)) if error.is::<LengthLimitError>() => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!(
                "the body has more than the limit of {} bytes",
                limits.max_body
            ),
        )),
        Ok((Err(_), _)) => Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "incomplete_body",
            "the body could not be read to its end",
        )),
        Ok((Ok(body), room)) => Ok((body.to_bytes(), room)),
    }
}

fn check_type(request: &Request) -> Result<(), ApiError> {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let media_type = content_type.and_then(|value| value.to_str().ok());
    let media_type = media_type.and_then(|value| value.split(';').next());
    // Browsers send other types across origins without asking; this one they ask for first.
    if media_type.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        "expected the header Content-Type: application/json",
    ))
}
