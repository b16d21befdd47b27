//! Panics of plug-ins, turned into errors of the sequence that they belong to.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A plug-in panicked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{during} panicked: {message}")]
pub struct Panicked {
    /// What was being done.
    pub during: &'static str,
    /// What the panic said.
    pub message: String,
}

/// Runs `work` and turns a panic into an error. What it changes must not matter after a panic.
///
/// # Errors
/// [`Panicked`] if it panics.
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
