//! Checking whether the files of a task are present and readable.

use std::path::{Path, PathBuf};

use super::definition::TaskDefinition;
use super::read_options::ReadOptions;
use crate::error::Result;
use crate::rows::matching_files;

/// A file of a task, or a pattern for several files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStatus {
    /// The file or pattern, relative to the data directory.
    pub pattern: String,
    /// Matching files; empty if the file is missing.
    pub found: Vec<PathBuf>,
}

/// The result of checking a task.
#[derive(Debug)]
pub struct CheckReport {
    /// Name of the task.
    pub task: String,
    /// Where the publisher provides the files.
    pub source: String,
    /// Files and patterns that the task needs.
    pub files: Vec<FileStatus>,
    /// The number of rows, or why the files cannot be read; `None` if files are missing.
    pub n_rows: Option<Result<usize>>,
    /// The number of selected samples, or the error of the first one; `None` if the files cannot be
    /// read.
    pub first_sample: Option<Result<usize>>,
}

impl CheckReport {
    /// Returns whether the task can be run.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        matches!(self.n_rows, Some(Ok(_))) && matches!(self.first_sample, Some(Ok(_)))
    }
}

impl TaskDefinition {
    /// Looks for the files of the task, reads their rows, and decodes the images of one sample.
    /// Problems are part of the report, not errors.
    #[must_use]
    pub fn check(&self, data_dir: &Path) -> CheckReport {
        let files: Vec<FileStatus> = self
            .files()
            .into_iter()
            .map(|pattern| FileStatus {
                pattern: pattern.to_owned(),
                found: matching_files(data_dir, pattern).unwrap_or_default(),
            })
            .collect();
        let mut report = CheckReport {
            task: self.name().to_owned(),
            source: self.source().to_owned(),
            n_rows: None,
            first_sample: None,
            files,
        };
        if report.files.iter().any(|file| file.found.is_empty()) {
            return report;
        }
        match self.open(data_dir, &ReadOptions::default()) {
            Ok(mut samples) => {
                report.n_rows = Some(Ok(samples.n_rows()));
                let first = samples.sample(0);
                report.first_sample = Some(first.map(|_| samples.n_samples()));
            }
            Err(error) => report.n_rows = Some(Err(error)),
        }
        report
    }
}
