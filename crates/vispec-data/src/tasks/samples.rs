//! Reading the samples of a task, one at a time.

use std::fmt;
use std::path::{Path, PathBuf};

use super::bad_rows::BadRows;
use super::definition::TaskDefinition;
use super::prompt::make_sample;
use super::read_options::{ImageCheck, ReadOptions};
use super::sample::Sample;
use super::selection::{Chosen, choose};
use crate::error::{DataError, Result};
use crate::rows::{Source, Table, open_tables};

impl TaskDefinition {
    /// Opens the files below `data_dir`, reads each row once without its images, and selects the
    /// samples. Drawn tasks need no files and accept any path.
    ///
    /// # Errors
    /// [`DataError::MissingFile`], [`DataError::FileSyntax`], [`DataError::MissingColumn`],
    /// [`DataError::DuplicateId`], [`DataError::TooFewRows`], and the first bad row beyond those
    /// that `options` tolerates: its own error if none are tolerated, otherwise
    /// [`DataError::TooManyBadRows`].
    pub fn open(&self, data_dir: &Path, options: &ReadOptions) -> Result<TaskSamples> {
        let columns = self.columns();
        let source = Source {
            data_dir,
            task: self.name(),
            from: self.source(),
            columns: &columns,
        };
        let mut table = open_tables(&self.rows, &source)?;
        let mut bad_rows = BadRows::new(options.max_bad_rows);
        let chosen = choose(self, table.as_mut(), options, &mut bad_rows)?;
        Ok(TaskSamples {
            task: self.clone(),
            data_dir: data_dir.to_owned(),
            options: *options,
            table,
            chosen,
            next: 0,
            bad_rows,
        })
    }
}

/// The samples of a task in upstream's order.
///
/// The iterator reads one row per step and holds no image. After returning an error, it continues
/// with the next sample.
pub struct TaskSamples {
    task: TaskDefinition,
    data_dir: PathBuf,
    options: ReadOptions,
    table: Box<dyn Table>,
    chosen: Vec<Chosen>,
    next: usize,
    bad_rows: BadRows,
}

impl TaskSamples {
    /// Returns the number of selected samples, including those that turn out to be bad.
    #[must_use]
    pub fn n_samples(&self) -> usize {
        self.chosen.len()
    }

    /// Returns the number of rows in the files, before filtering and selection.
    pub(crate) fn n_rows(&self) -> usize {
        self.table.n_rows()
    }

    /// Returns the ids of the selected samples, in order.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.chosen.iter().map(|chosen| chosen.id.as_str())
    }

    /// Returns the bad rows skipped so far; never more than are tolerated.
    #[must_use]
    pub fn bad_rows(&self) -> &[DataError] {
        self.bad_rows.found()
    }

    /// Reads the selected sample `index`, from 0. Does not advance the iterator.
    ///
    /// # Errors
    /// [`DataError::NoSuchSample`], and the errors of a bad row or its images.
    pub fn sample(&mut self, index: usize) -> Result<Sample> {
        let Some(chosen) = self.chosen.get(index) else {
            return Err(DataError::NoSuchSample {
                task: self.task.name().to_owned(),
                index,
                found: self.chosen.len(),
            });
        };
        let table = self.table.as_mut();
        let id = chosen.id.clone();
        let sample = make_sample(&self.task, &self.data_dir, table, chosen.row, id)?;
        if self.options.image_check == ImageCheck::WithSample {
            for image in &sample.images {
                image.decode(&self.options.image_options)?;
            }
            for video in &sample.videos {
                video.decode(&self.options.image_options)?;
            }
        }
        Ok(sample)
    }
}

impl Iterator for TaskSamples {
    type Item = Result<Sample>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.next < self.chosen.len() {
            self.next += 1;
            match self.sample(self.next - 1) {
                Ok(sample) => return Some(Ok(sample)),
                Err(error) => {
                    if let Err(error) = self.bad_rows.tolerate(error) {
                        return Some(Err(error));
                    }
                }
            }
        }
        None
    }
}

impl fmt::Debug for TaskSamples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskSamples")
            .field("task", &self.task.name())
            .field("data_dir", &self.data_dir)
            .field("n_samples", &self.chosen.len())
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
