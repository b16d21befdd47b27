//! Access log: one line per request, with an id that client and operator can refer to.

use std::hash::{BuildHasher as _, RandomState};
use std::pin::Pin;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tracing::Instrument as _;

use crate::client::Client;
use crate::headers::REQUEST_ID;

/// Maximum length of an id that is accepted from a client.
const MAX_ID: usize = 128;
/// Paths that probes and scrapers poll; their successes are logged at `debug`.
const WATCHED: [&str; 4] = ["/health", "/livez", "/readyz", "/metrics"];

/// Gives the request an id, and logs a line when its response has been sent or abandoned.
pub(crate) async fn layer(mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = request.headers().get(&REQUEST_ID);
    let id = id.filter(|id| is_sane(id)).cloned().unwrap_or_else(new_id);
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let mut line = Line {
        began,
        id: id.clone(),
        client: request.extensions().get::<Client>().copied(),
        method: request.method().clone(),
        // The query may hold private data.
        path: request.uri().path().to_owned(),
        answered: None,
        bytes: 0,
        ended: false,
    };
    let span = tracing::info_span!("request", id = line.id());
    let mut response = next.run(request).instrument(span).await;
    line.answered = Some((response.status(), began.elapsed()));
    line.ended = response.body().is_end_stream();
    response.headers_mut().insert(REQUEST_ID, id);
    response.map(|body| Body::new(Logged { body, line }))
}

/// Returns whether an id can be written to a log safely.
fn is_sane(id: &HeaderValue) -> bool {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    (1..=MAX_ID).contains(&id.len()) && id.as_bytes().iter().all(allowed)
}

/// Returns an id that is unique on this server and, in all likelihood, among servers.
fn new_id() -> HeaderValue {
    static SERVER: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(()));
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let id = HeaderValue::try_from(format!("{:016x}-{count:x}", *SERVER));
    // Digits and a hyphen are always a valid header value.
    id.unwrap_or(HeaderValue::from_static("-"))
}

/// The log line of a request, written when it is dropped.
struct Line {
    began: Instant,
    id: HeaderValue,
    client: Option<Client>,
    method: Method,
    path: String,
    /// Status, and time to the head of the response.
    answered: Option<(StatusCode, Duration)>,
    bytes: u64,
    /// Whether the whole response was sent.
    ended: bool,
}

impl Line {
    fn id(&self) -> &str {
        self.id.to_str().unwrap_or_default()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let client = self.client.map(|client| client.to_string());
        let client = client.as_deref().unwrap_or("-");
        let status = self.answered.map_or(0, |(status, _)| status.as_u16());
        let head = self.answered.map_or(Duration::ZERO, |(_, head)| head);
        macro_rules! write {
            ($level:ident) => {
                tracing::$level!(
                    target: "vispec_serve::access",
                    id = self.id(),
                    client,
                    method = %self.method,
                    path = %self.path,
                    status,
                    bytes = self.bytes,
                    head_ms = head.as_millis() as u64,
                    ms = self.began.elapsed().as_millis() as u64,
                    whole = self.ended,
                    "request"
                )
            };
        }
        if status < 400 && WATCHED.contains(&self.path.as_str()) {
            write!(debug);
        } else {
            write!(info);
        }
    }
}

/// A body that notes when it ends.
struct Logged {
    body: Body,
    line: Line,
}

impl HttpBody for Logged {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        match &frame {
            Poll::Ready(Some(Ok(frame))) => {
                self.line.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                self.line.ended |= self.body.is_end_stream();
            }
            Poll::Ready(None) => self.line.ended = true,
            Poll::Ready(Some(Err(_))) | Poll::Pending => {}
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_clients_are_taken_over_if_they_are_sane() {
        for id in ["a", "4f2c-99", "req_1.2:3/4+5=", &"x".repeat(128)] {
            assert!(is_sane(&HeaderValue::from_str(id).unwrap()), "{id}");
        }
        for id in ["", "a b", "a\tb", "a\"b", "a{b}", &"x".repeat(129)] {
            assert!(!is_sane(&HeaderValue::from_str(id).unwrap()), "{id}");
        }
        assert!(!is_sane(&HeaderValue::from_bytes(b"\xc3\xa4").unwrap()));
    }

    #[test]
    fn new_ids_differ_and_are_sane() {
        let ids = [new_id(), new_id()];
        assert_ne!(ids[0], ids[1]);
        assert!(ids.iter().all(is_sane));
    }
}
