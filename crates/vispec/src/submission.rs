//! Requests with their scheduling options, and handles to cancel them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use vispec_core::Speculation;
use vispec_models::AnyDrafter;

use crate::request::AnswerRequest;

/// Creates a drafter for one answer.
pub type DrafterSource = Arc<dyn Fn() -> AnyDrafter + Send + Sync>;

/// A request with options that do not affect its tokens.
#[derive(Clone)]
pub struct Submission {
    /// The request.
    pub request: AnswerRequest,
    /// When the answer ends at the latest; waiting time counts.
    pub deadline: Option<Instant>,
    /// Whether tokens are drafted.
    pub speculation: Speculation,
    /// Drafter that replaces the engine's.
    pub drafter: Option<DrafterSource>,
    /// Number that identifies the client, 0 by default. The client with the fewest answers in
    /// progress has the next turn. If the queue is full, the client with the most waiting requests
    /// loses its newest one.
    pub client: u64,
}

impl Submission {
    /// Creates a submission for plain decoding, without drafts, as a baseline.
    #[must_use]
    pub fn plain(request: AnswerRequest) -> Self {
        Self {
            speculation: Speculation::Off,
            ..request.into()
        }
    }
}

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission")
            .field("request", &self.request)
            .field("deadline", &self.deadline)
            .field("speculation", &self.speculation)
            .finish_non_exhaustive()
    }
}

impl From<AnswerRequest> for Submission {
    /// Sets no deadline and uses the engine's drafter, if it has one.
    fn from(request: AnswerRequest) -> Self {
        Self {
            request,
            deadline: None,
            speculation: Speculation::On,
            drafter: None,
            client: 0,
        }
    }
}

/// Whether a submission is still wanted.
#[derive(Debug)]
pub(crate) struct Ticket {
    cancelled: AtomicBool,
    client: u64,
}

impl Ticket {
    pub(crate) fn new(client: u64) -> Self {
        Self {
            cancelled: AtomicBool::new(false),
            client,
        }
    }

    /// Returns the client.
    pub(crate) fn client(&self) -> u64 {
        self.client
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}

/// Handle that ends the answers to a submission from elsewhere. Clones end the same answers.
#[derive(Clone)]
pub struct CancelHandle {
    cancel: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for CancelHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelHandle").finish_non_exhaustive()
    }
}

impl CancelHandle {
    /// Creates a handle that cancels by calling `cancel`, possibly more than once.
    pub fn new(cancel: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            cancel: Arc::new(cancel),
        }
    }

    /// Ends the answers after the current pass, or before they start; their text so far is kept.
    pub fn cancel(&self) {
        (self.cancel)();
    }
}

/// Handle to a submission that is waiting or being answered. Dropping it cancels the submission,
/// unless it is [detached](Self::detach).
#[derive(Debug)]
#[must_use = "the answers are cancelled when this is dropped"]
pub struct SubmissionHandle {
    cancel: CancelHandle,
    cancels_when_dropped: bool,
}

impl From<CancelHandle> for SubmissionHandle {
    fn from(cancel: CancelHandle) -> Self {
        Self {
            cancel,
            cancels_when_dropped: true,
        }
    }
}

impl SubmissionHandle {
    /// Ends the answers like [`CancelHandle::cancel`].
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Returns a handle that ends the answers from elsewhere.
    #[must_use]
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    /// Lets the answers run to their end without this handle.
    pub fn detach(mut self) {
        self.cancels_when_dropped = false;
    }
}

impl Drop for SubmissionHandle {
    fn drop(&mut self) {
        if self.cancels_when_dropped {
            self.cancel();
        }
    }
}
