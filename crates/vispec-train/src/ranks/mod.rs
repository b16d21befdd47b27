//! Ranks: processes that take the steps of one run together.
//!
//! The batches of a step have a fixed order, whatever the number of ranks. Each rank computes the
//! gradients of its share of the batches. All ranks end the step with the same sum of gradients,
//! added batch by batch in that order (`GradientSum`). Every rank therefore makes the same update
//! to the same parameters, and a run has the same loss curve on one rank and on many. With one
//! rank, the share is the whole step.
//!
//! A failure on one rank is a failure on all ([`Ranks::all_succeed`]), so that no rank waits for
//! one that has ended.

mod agree;
mod communicator;
#[cfg(feature = "mpi")]
mod mpi_process;
mod roll_call;
mod sum;

pub(crate) use agree::list;
pub use agree::{RankFailure, Ranks};
pub use communicator::Communicator;
#[cfg(feature = "mpi")]
pub use mpi_process::{JoinError, MpiProcess};
pub(crate) use roll_call::RollCall;
pub(crate) use sum::GradientSum;
pub use sum::GradientType;
