//! A run: epochs, metrics, checkpoints, and going on after an interruption.

mod held_out;
mod metrics;
mod samples;
mod simulate;
mod state;
mod trainer;

pub(crate) use metrics::Metrics;
pub(crate) use state::{RunProgress, State, config_difference};

pub use held_out::{HeldOut, LossSums};
pub use metrics::{EpochRecord, METRICS_FILE, MetricsRecord, StepRecord};
pub use simulate::{Acceptance, Drafting, ROLLED_STEPS, Simulation};
pub use state::{Best, Progress, STATE_FILE};
pub use trainer::{Ended, Observer, RunPaths, Trainer};
