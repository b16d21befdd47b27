//! Paths of a run, and reports of its progress.

use std::path::PathBuf;

use super::metrics::{EpochRecord, StepRecord};

/// Files of a run.
#[derive(Debug, Clone)]
pub struct RunPaths {
    /// Directory of the run: metrics, state, and the drafts in `last` and `best`.
    pub out: PathBuf,
}

/// Observes the progress of a run. With several ranks, only the first one's observer is called.
pub trait Observer {
    /// Called when a run starts or resumes at `step` of `n_steps`.
    fn started(&mut self, step: usize, n_steps: usize);
    /// Called after each step.
    fn step(&mut self, record: &StepRecord);
    /// Called during evaluation, when `done` of `of` held-out samples are done.
    fn judging(&mut self, done: usize, of: usize);
    /// Called after each epoch.
    fn epoch(&mut self, record: &EpochRecord);
}

/// The observer of all ranks but the first: does nothing.
pub(super) struct Unobserved;

impl Observer for Unobserved {
    fn started(&mut self, _step: usize, _n_steps: usize) {}

    fn step(&mut self, _record: &StepRecord) {}

    fn judging(&mut self, _done: usize, _of: usize) {}

    fn epoch(&mut self, _record: &EpochRecord) {}
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All epochs are done.
    Finished,
    /// The run was asked to stop. Its state is saved.
    Interrupted,
}
