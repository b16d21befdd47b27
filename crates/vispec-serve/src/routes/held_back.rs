//! Delayed refusals.
//!
//! A client that retries immediately after each refusal causes work as fast as this machine can
//! refuse. If there are many refusals per second, a short delay before each bounds how often a
//! connection can be refused; the delay is longer after a long body, which took longer to read.
//! Requests that are answered are never delayed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt as _;

/// Number of refusals per second that are sent immediately, if their bodies are short.
const PROMPT: usize = 32;
const WINDOW: Duration = Duration::from_secs(1);
/// Delay of further refusals.
const MOMENT: Duration = Duration::from_millis(250);
/// Each such number of body bytes counts as one more refusal.
const LONG: usize = 128 << 10;
/// Maximum delay of a refusal.
const LONGEST: Duration = Duration::from_secs(5);

/// Counts recent refusals.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Option<Counted>>);

#[derive(Debug)]
struct Counted {
    since: Instant,
    refusals: usize,
}

impl Refusals {
    /// Counts a refusal after a body of `bytes`; returns its delay.
    fn count(&self, bytes: usize, now: Instant) -> Duration {
        let weight = 1 + bytes / LONG;
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = match &mut *counted {
            Some(counted) if now.saturating_duration_since(counted.since) < WINDOW => counted,
            old => old.insert(Counted {
                since: now,
                refusals: 0,
            }),
        };
        counted.refusals = counted.refusals.saturating_add(weight);
        if counted.refusals <= PROMPT {
            return Duration::ZERO;
        }
        let weight = u32::try_from(weight).unwrap_or(u32::MAX);
        MOMENT.saturating_mul(weight).min(LONGEST)
    }
}

/// Delays responses with a client error status, including those that ask to retry later.
pub(super) async fn layer(
    State(refusals): State<Arc<Refusals>>,
    request: Request,
    next: Next,
) -> Response {
    let read = Arc::new(AtomicUsize::new(0));
    let response = next.run(counting(request, &read)).await;
    if response.status().is_client_error() {
        let moment = refusals.count(read.load(Ordering::Relaxed), Instant::now());
        if !moment.is_zero() {
            tokio::time::sleep(moment).await;
        }
    }
    response
}

/// Returns the request with a body that counts the bytes read from it.
fn counting(request: Request, read: &Arc<AtomicUsize>) -> Request {
    let read = Arc::clone(read);
    request.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let bytes = frame.data_ref().map_or(0, |data| data.len());
            read.fetch_add(bytes, Ordering::Relaxed);
            frame
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_refusals_are_told_at_once() {
        let refusals = Refusals::default();
        let start = Instant::now();
        assert!((0..PROMPT).all(|_| refusals.count(0, start).is_zero()));
        assert_eq!(refusals.count(0, start + WINDOW / 2), MOMENT);
        assert!(refusals.count(0, start + WINDOW).is_zero());
    }

    #[test]
    fn refusals_of_long_bodies_weigh_more() {
        let refusals = Refusals::default();
        let start = Instant::now();
        assert!(refusals.count(LONG * (PROMPT - 1), start).is_zero());
        assert_eq!(refusals.count(LONG, start), 2 * MOMENT);
        assert_eq!(refusals.count(usize::MAX, start), LONGEST);
    }
}
