//! The error type of this crate.

use std::path::PathBuf;

use vispec_core::BoxError;
use vispec_data::DataError;
use vispec_data::capture::CaptureError;
use vispec_models::ModelError;

use crate::ranks::{RankFailure, list};

/// An error in training a draft or a target.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system reported.
        #[source]
        source: std::io::Error,
    },
    /// A config is not TOML, lacks a field, or has an unknown field.
    #[error("{name}: {source}")]
    ConfigSyntax {
        /// The file, or the setting on the command line.
        name: String,
        /// The syntax error, with its position.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A setting on the command line is not of the form `key=value`.
    #[error("setting {found:?}: expected key=value, such as optimizer.learning_rate=1e-4")]
    SettingForm {
        /// The text that was given.
        found: String,
    },
    /// A setting has a value that cannot be used.
    #[error("setting {field} is {found}, expected {expected}")]
    Setting {
        /// The setting, with dots between levels.
        field: &'static str,
        /// Its value.
        found: String,
        /// A description of valid values.
        expected: String,
    },
    /// Captures could not be opened or read.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// The parts of a sample that are not stored could not be recomputed.
    #[error("sample {id:?} ({origin}): recomputing its states with the target: {source}")]
    Recompute {
        /// The sample.
        id: String,
        /// File and row that the sample was made from.
        origin: String,
        /// The cause.
        #[source]
        source: BoxError,
    },
    /// A sample could not be read.
    #[error("sample {index}: {source}")]
    ReadSample {
        /// Its index in the data, from 0.
        index: usize,
        /// The reader's error.
        #[source]
        source: BoxError,
    },
    /// A sample contradicts itself, or was captured from another target.
    #[error("sample {id:?}: {quantity} is {found}, expected {expected}")]
    SampleShape {
        /// The sample.
        id: String,
        /// The quantity that differs.
        quantity: &'static str,
        /// Its value.
        found: usize,
        /// The value that it should have.
        expected: usize,
    },
    /// There is nothing to train on.
    #[error("{found} samples, of which {held_out} are held out: nothing is left to train on")]
    NoSamples {
        /// Samples in the data.
        found: usize,
        /// Samples that are held out.
        held_out: usize,
    },
    /// Every sample of an epoch was refused.
    #[error("epoch {epoch}: all {refused} samples were refused; the first: {first}")]
    AllRefused {
        /// The epoch, from 0.
        epoch: usize,
        /// Number of refused samples.
        refused: usize,
        /// The first of them, with the reason.
        first: String,
    },
    /// The loss or a gradient is NaN or infinite. The step had no effect.
    #[error("{quantity} of step {step} is not finite; samples of the step: {}", samples.join(", "))]
    NotFinite {
        /// The step, from 0.
        step: usize,
        /// The quantity that is not finite.
        quantity: String,
        /// Ids of the samples of the step.
        samples: Vec<String>,
    },

    /// Parameters of a checkpoint are missing or have another shape.
    #[error("{path}: {reason}")]
    Checkpoint {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with the checkpoint.
        reason: String,
    },
    /// A checkpoint was made by a run with other settings.
    #[error(
        "{path}: made with other settings: {difference}; continue with the same ones, or give \
         another --out"
    )]
    OtherRun {
        /// The state file.
        path: PathBuf,
        /// The settings that differ.
        difference: String,
    },
    /// The draft does not fit the target.
    #[error("{quantity} of the draft is {found}, of the target {expected}")]
    TargetMismatch {
        /// The quantity that differs.
        quantity: &'static str,
        /// The draft's value.
        found: usize,
        /// The target's value.
        expected: usize,
    },
    /// The target's hidden size is not a multiple of its head size, as drafts other than EAGLE-3
    /// need it.
    #[error(
        "the hidden size of the target, {hidden}, is not a multiple of its head size, {head_dim}; \
         only an EAGLE-3 draft fits such a target"
    )]
    HeadSize {
        /// The target's hidden size.
        hidden: usize,
        /// The target's head size.
        head_dim: usize,
    },
    /// The target's output head is quantised.
    #[error("the output head of the target is quantised; training needs its full weights")]
    QuantizedHead,
    /// A capture does not hold the residual states that the draft reads.
    #[error(
        "{dir}: has the residual states {found:?}, expected {expected:?}; capture with --states, \
         or with --storage online"
    )]
    CapturedStates {
        /// The capture.
        dir: PathBuf,
        /// States in the capture.
        found: Vec<usize>,
        /// States that the draft reads.
        expected: Vec<usize>,
    },
    /// Pictures could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The target or the draft could not be loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Drafting with the trained draft failed.
    #[error("drafting for sample {id:?}: {source}")]
    Draft {
        /// The held-out sample.
        id: String,
        /// The drafter's error.
        #[source]
        source: BoxError,
    },
    /// A lesson for a target could not be made.
    #[error("lesson {id:?}: {source}")]
    Lesson {
        /// The lesson.
        id: String,
        /// The cause.
        #[source]
        source: BoxError,
    },
    /// A thread could not be started.
    #[error("starting a thread for lessons")]
    Thread(#[source] rayon::ThreadPoolBuildError),
    /// Some ranks of a run failed, so that all of them end.
    #[error("{}", list(failures))]
    Ranks {
        /// The ranks that failed, with their errors.
        failures: Vec<RankFailure>,
    },
    /// Values could not be read back from the device.
    #[error("reading {what} from the device: {reason}")]
    Device {
        /// The values that were read.
        what: &'static str,
        /// The device's message.
        reason: String,
    },
}

/// Returns the error for a setting whose value cannot be used.
pub(crate) fn setting(
    field: &'static str,
    found: impl std::fmt::Display,
    expected: impl Into<String>,
) -> TrainError {
    TrainError::Setting {
        field,
        found: found.to_string(),
        expected: expected.into(),
    }
}

/// Checks a setting that must not be smaller than `least`.
pub(crate) fn at_least(field: &'static str, found: usize, least: usize) -> Result<(), TrainError> {
    if found < least {
        return Err(setting(field, found, format!("at least {least}")));
    }
    Ok(())
}

/// Checks a setting that must be positive and finite.
pub(crate) fn above_zero(field: &'static str, found: f64) -> Result<(), TrainError> {
    if found > 0.0 && found.is_finite() {
        return Ok(());
    }
    Err(setting(field, found, "a number above 0"))
}

/// Returns the error for a lesson that could not be made.
pub(crate) fn lesson_error(id: &str, error: impl Into<BoxError>) -> TrainError {
    TrainError::Lesson {
        id: id.to_owned(),
        source: error.into(),
    }
}
