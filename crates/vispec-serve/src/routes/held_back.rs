//! Refusals that are told after a moment.
//!
//! Whoever asks again at once after each refusal makes work with every one of them, as fast as this
//! machine can refuse. Where there are many a second, a moment before each bounds how often a
//! connection can be refused. Nobody who is answered waits for that.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

/// Refusals in a second that are told at once.
const PROMPT: u32 = 32;
const WINDOW: Duration = Duration::from_secs(1);
/// How long others are held back.
const MOMENT: Duration = Duration::from_millis(250);

/// Refusals of late.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<Option<Counted>>);

#[derive(Debug)]
struct Counted {
    since: Instant,
    refusals: u32,
}

impl Refusals {
    /// Counts one; whether there are too many to tell it at once.
    fn are_many(&self, now: Instant) -> bool {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = match &mut *counted {
            Some(counted) if now.saturating_duration_since(counted.since) < WINDOW => counted,
            old => old.insert(Counted {
                since: now,
                refusals: 0,
            }),
        };
        counted.refusals = counted.refusals.saturating_add(1);
        counted.refusals > PROMPT
    }
}

/// Holds back answers that find fault with the request, or tell to come again later.
pub(super) async fn layer(
    State(refusals): State<Arc<Refusals>>,
    request: Request,
    next: Next,
) -> Response {
    let response = next.run(request).await;
    if response.status().is_client_error() && refusals.are_many(Instant::now()) {
        tokio::time::sleep(MOMENT).await;
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_refusals_are_told_at_once() {
        let refusals = Refusals::default();
        let start = Instant::now();
        assert!((0..PROMPT).all(|_| !refusals.are_many(start)));
        assert!(refusals.are_many(start + WINDOW / 2));
        assert!(!refusals.are_many(start + WINDOW));
    }
}
