//! Ranks: processes that take the steps of one run together.
//!
//! A step has batches in one order, whatever the number of ranks. Each rank computes the gradients
//! of a share of them, and all end the step with the same sum, which is taken batch by batch in that
//! order (`GradientSum`). So every rank does the same to the same parameters, and a run has the same
//! curve on one rank and on many. One rank is the case in which the share is everything.
//!
//! What fails on one rank fails on all ([`Ranks::all_succeed`]): nobody waits for one that left.

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
