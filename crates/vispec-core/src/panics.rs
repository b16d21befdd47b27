//! Conversion of panics in plug-ins to errors of the affected sequence.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A panic of a plug-in.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{during} panicked: {message}")]
pub struct Panicked {
    /// The operation that panicked.
    pub during: &'static str,
    /// Message of the panic.
    pub message: String,
}

/// Runs `work` and converts a panic to an error. After a panic, the caller must not rely on any
/// state that `work` modified.
///
/// # Errors
/// [`Panicked`] if `work` panics.
pub fn guarded<R>(during: &'static str, work: impl FnOnce() -> R) -> Result<R, Panicked> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| Panicked {
        during,
        message: message(&*payload),
    })
}

fn message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "without a message".to_owned())
}
