//! Training runs: epochs, metrics, checkpoints, and resuming after an interruption.

mod held_out;
mod metrics;
mod observer;
mod samples;
mod share;
mod simulate;
mod state;
mod trainer;

pub(crate) use metrics::Metrics;
pub(crate) use state::{RunProgress, State, config_difference, first_difference, weights_hash};

pub use held_out::HeldOut;
pub use metrics::{EpochRecord, MetricsRecord, RankTimes, StepRecord};
pub use observer::{Ended, Observer, RunPaths};
pub use simulate::{Acceptance, Drafting};
pub use state::STATE_FILE;
pub use trainer::Trainer;
