//! Refusals that are told after a moment.
//!
//! Whoever does not wait as long as told and asks again at once makes work with every refusal, for
//! this machine and on it. A moment bounds how often a connection can be refused; whoever does wait
//! loses little of a second or more.

use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;

/// How long a refusal is held back.
const MOMENT: Duration = Duration::from_millis(250);

/// Holds back answers that tell to come again later.
pub(super) async fn layer(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if response.status() == StatusCode::TOO_MANY_REQUESTS {
        tokio::time::sleep(MOMENT).await;
    }
    response
}
