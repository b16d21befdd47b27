//! A request on its way to the scheduler, and how to take it back.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use vispec_core::Speculation;
use vispec_models::AnyDrafter;

use crate::request::AnswerRequest;

/// Makes a drafter for one answer.
pub type DrafterSource = Arc<dyn Fn() -> AnyDrafter + Send + Sync>;

/// A request, and what its tokens do not depend on.
#[derive(Clone)]
pub struct Submission {
    /// What is asked.
    pub request: AnswerRequest,
    /// When the answer ends if it has not ended by itself, waiting included.
    pub deadline: Option<Instant>,
    /// Whether tokens are drafted.
    pub speculation: Speculation,
    /// How tokens are drafted, if not as the engine does.
    pub drafter: Option<DrafterSource>,
    /// A number for whoever asks: turns go to who has the fewest answers under way, and where too
    /// many wait, who has the most requests there gives up the latest. 0 by default.
    pub client: u64,
}

impl Submission {
    /// A request that is decoded plainly, without drafts, to compare with.
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
    /// No deadline, and the engine's way to draft, if it has one.
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

    /// Whose it is.
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

/// Ends the answers to a submission from elsewhere. Clones end the same ones.
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
    /// A handle that cancels by `cancel`, which may be called more than once.
    pub fn new(cancel: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            cancel: Arc::new(cancel),
        }
    }

    /// Ends the answers after the pass that is under way, or before they start; what they said so
    /// far stays.
    pub fn cancel(&self) {
        (self.cancel)();
    }
}

/// A submission that waits or is being answered. Dropping it cancels it, unless it is
/// [detached](Self::detach).
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
    /// Ends the answers, as [`CancelHandle::cancel`] does.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// Ends the answers from elsewhere.
    #[must_use]
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    /// Lets the answers come to their end by themselves.
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
