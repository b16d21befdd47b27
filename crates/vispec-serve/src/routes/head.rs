//! Limits on the head of a request, tighter than those of the HTTP library, which refuses requests
//! without a reason.

use axum::extract::Request;
use axum::http::{StatusCode, Version, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::api_error::ApiError;

/// Maximum number of header fields that the HTTP library parses; above it, it sends a bare status.
pub(crate) const MAX_PARSED_HEADERS: usize = 1024;
/// Maximum number of header fields.
const MAX_HEADERS: usize = 100;
/// Maximum number of bytes in names and values of header fields.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// Maximum number of bytes in path and query.
const MAX_PATH_BYTES: usize = 8 << 10;

/// Passes on requests whose head is within the limits.
///
/// # Errors
/// Status 431, 400 or 414.
pub(super) async fn check(request: Request, next: Next) -> Result<Response, ApiError> {
    let headers = request.headers();
    let fields = headers.iter();
    let bytes: usize = fields
        .map(|(name, value)| name.as_str().len() + value.len())
        .sum();
    if headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES {
        return Err(ApiError::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers_too_large",
            format!(
                "the request has {} header fields of {bytes} bytes, expected at most \
                 {MAX_HEADERS} of {MAX_HEADER_BYTES}",
                headers.len()
            ),
        ));
    }
    let hosts = headers.get_all(header::HOST).iter().count();
    let needs_host = request.version() == Version::HTTP_11;
    if hosts > 1 || needs_host && hosts == 0 {
        return Err(ApiError::new(
            StatusCode::BAD_REQUEST,
            "invalid_host",
            format!("the request has {hosts} Host header fields, expected one"),
        ));
    }
    let path = request.uri().path_and_query();
    let path_bytes = path.map_or(0, |path| path.as_str().len());
    if path_bytes > MAX_PATH_BYTES {
        return Err(ApiError::new(
            StatusCode::URI_TOO_LONG,
            "path_too_long",
            format!("the path has {path_bytes} bytes, expected at most {MAX_PATH_BYTES}"),
        ));
    }
    Ok(next.run(request).await)
}
