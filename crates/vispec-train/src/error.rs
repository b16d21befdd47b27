//! The error type of this crate.

use std::path::PathBuf;

use vispec_core::BoxError;
use vispec_data::DataError;
use vispec_data::capture::CaptureError;
use vispec_models::ModelError;

use crate::ranks::{RankFailure, list};

/// Everything that can go wrong while a draft is trained.
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
    /// A config is not TOML, lacks a field, or has one that there is not.
    #[error("{name}: {source}")]
    ConfigSyntax {
        /// The file, or the setting on the command line.
        name: String,
        /// What is wrong, with its place.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A setting on the command line is not of the form `key=value`.
    #[error("setting {found:?}: expected key=value, such as optimizer.learning_rate=1e-4")]
    SettingForm {
        /// What was given.
        found: String,
    },
    /// A setting has a value that cannot be used.
    #[error("setting {field} is {found}, expected {expected}")]
    Setting {
        /// The setting, with dots between levels.
        field: &'static str,
        /// Its value.
        found: String,
        /// What would be valid.
        expected: String,
    },

    /// Captures could not be opened or read.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// What was not stored of a sample could not be computed again.
    #[error("sample {id:?} ({origin}): reading it with the target: {source}")]
    Recompute {
        /// The sample.
        id: String,
        /// File and row that it was made of.
        origin: String,
        /// What failed.
        #[source]
        source: BoxError,
    },
    /// A sample could not be read.
    #[error("sample {index}: {source}")]
    ReadSample {
        /// Its index in the data, from 0.
        index: usize,
        /// What the reader says.
        #[source]
        source: BoxError,
    },
    /// A sample contradicts itself, or was captured from another target.
    #[error("sample {id:?}: {quantity} is {found}, expected {expected}")]
    SampleShape {
        /// The sample.
        id: String,
        /// What differs.
        quantity: &'static str,
        /// What is there.
        found: usize,
        /// What should be.
        expected: usize,
    },
    /// There is nothing to train on.
    #[error("{found} samples, of which {held_out} are held out: nothing is left to train on")]
    NoSamples {
        /// Samples in the data.
        found: usize,
        /// Samples that are not trained on.
        held_out: usize,
    },
    /// Every sample of an epoch was refused.
    #[error("epoch {epoch}: all {refused} samples were refused; the first: {first}")]
    AllRefused {
        /// The epoch, from 0.
        epoch: usize,
        /// How many.
        refused: usize,
        /// One of them and why.
        first: String,
    },
    /// The loss, or a gradient, is not a number. Nothing of this step was kept.
    #[error("{quantity} of step {step} is not finite; samples of the step: {}", samples.join(", "))]
    NotFinite {
        /// The step, from 0.
        step: usize,
        /// What is not a number.
        quantity: String,
        /// Ids of the samples.
        samples: Vec<String>,
    },

    /// Parameters of a checkpoint are missing or have another shape.
    #[error("{path}: {reason}")]
    Checkpoint {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A checkpoint was made by a run with other settings.
    #[error(
        "{path}: was made with other settings: {difference}; continue with the same ones, or give \
         another --out"
    )]
    OtherRun {
        /// The state file.
        path: PathBuf,
        /// What differs.
        difference: String,
    },
    /// The target and the draft do not fit.
    #[error("{quantity} of the draft is {found}, of the target {expected}")]
    TargetMismatch {
        /// What differs.
        quantity: &'static str,
        /// The draft's.
        found: usize,
        /// The target's.
        expected: usize,
    },
    /// A capture does not hold what the draft reads.
    #[error(
        "{dir}: keeps the residual states {found:?}, expected {expected:?}; capture with --states, or \
         with --storage online"
    )]
    CapturedStates {
        /// The capture.
        dir: PathBuf,
        /// States that it keeps.
        found: Vec<usize>,
        /// States that the draft reads.
        expected: Vec<usize>,
    },
    /// Pictures could not be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Target or draft could not be loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A trained draft could not draft.
    #[error("drafting for sample {id:?}: {source}")]
    Draft {
        /// The held-out sample.
        id: String,
        /// What the drafter says.
        #[source]
        source: BoxError,
    },
    /// What a target is taught could not be made.
    #[error("lesson {id:?}: {source}")]
    Lesson {
        /// What it is.
        id: String,
        /// What failed.
        #[source]
        source: BoxError,
    },
    /// A thread could not be started.
    #[error("starting a thread for lessons")]
    Thread(#[source] rayon::ThreadPoolBuildError),
    /// Something failed on some of the ranks of a run, so that all of them end.
    #[error("{}", list(failures))]
    Ranks {
        /// What, on which.
        failures: Vec<RankFailure>,
    },
    /// Values could not be read back from the device.
    #[error("reading {what} from the device: {reason}")]
    Device {
        /// What was read.
        what: &'static str,
        /// What the device says.
        reason: String,
    },
}

/// A setting whose value cannot be used.
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

/// A lesson that could not be made.
pub(crate) fn lesson_error(id: &str, error: impl Into<BoxError>) -> TrainError {
    TrainError::Lesson {
        id: id.to_owned(),
        source: error.into(),
    }
}
