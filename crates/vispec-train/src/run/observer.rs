//! What a run is given, and what is heard of it.

use std::path::PathBuf;

use super::metrics::{EpochRecord, StepRecord};

/// Files of a run.
#[derive(Debug, Clone)]
pub struct RunPaths {
    /// Directory of the run: metrics, state, and the drafts in `last` and `best`.
    pub out: PathBuf,
}

/// Watches a run; of several ranks, the first one's.
pub trait Observer {
    /// A run starts, or goes on, at `step` of `n_steps`.
    fn started(&mut self, step: usize, n_steps: usize);
    /// A step is done.
    fn step(&mut self, record: &StepRecord);
    /// This many held-out samples of this many were judged.
    fn judging(&mut self, done: usize, of: usize);
    /// An epoch is done.
    fn epoch(&mut self, record: &EpochRecord);
}

/// The ranks that no one watches.
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
    /// It was asked to stop. The state is saved.
    Interrupted,
}
