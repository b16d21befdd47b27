//! Reading the body of a request, within limits of type, size, memory and time.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::api_error::ApiError;
use crate::limits::RequestLimits;
use crate::request_memory::{NoRoom, Room};

/// Why a body cannot be read.
enum BodyError {
    NoRoom(NoRoom),
    Broken(axum::BoxError),
}

/// Reads the body of a JSON request, reserving its bytes in `room`.
///
/// # Errors
/// Status 415, 413, 408, 429 or 400.
pub(super) async fn read_json(
    request: Request,
    limits: &RequestLimits,
    room: &mut Room,
) -> Result<Vec<u8>, ApiError> {
    check_type(&request)?;
    let body = Limited::new(request.into_body(), limits.max_body);
    match tokio::time::timeout(limits.body_timeout, collect(body, room)).await {
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "request_timeout",
            "the body did not arrive in time",
        )),
        Ok(Err(BodyError::NoRoom(reason))) => Err(reason.into()),
        Ok(Err(BodyError::Broken(error))) if error.is::<LengthLimitError>() => Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!(
                "the body has more than the limit of {} bytes",
                limits.max_body
            ),
        )),
        Ok(Err(BodyError::Broken(_))) => Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "incomplete_body",
            "the body ended too early",
        )),
        Ok(Ok(body)) => Ok(body),
    }
}

/// Collects the bytes that arrive and reserves memory for them, whatever the head announces.
async fn collect(mut body: Limited<Body>, room: &mut Room) -> Result<Vec<u8>, BodyError> {
    let mut content = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() {
            room.grow(data.len()).map_err(BodyError::NoRoom)?;
            content.extend_from_slice(&data);
        }
    }
    Ok(content)
}

fn check_type(request: &Request) -> Result<(), ApiError> {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let media_type = content_type.and_then(|value| value.to_str().ok());
    let media_type = media_type.and_then(|value| value.split(';').next());
    // Browsers send other types across origins without a preflight request, but not this one.
    if media_type.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        "expected the header Content-Type: application/json",
    ))
}
