//! Headers of our own.

use axum::http::HeaderName;

/// Header with the id, in requests and responses.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Header that lists the ignored fields of a request.
pub(crate) const IGNORED: HeaderName = HeaderName::from_static("x-vispec-ignored");
