//! Options for reading the files of a task.

use vispec_processor::ImageOptions;

/// When images are decoded to check that they are intact.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ImageCheck {
    /// Together with their sample, so that a damaged image counts as a bad row.
    #[default]
    WithSample,
    /// Only when the pixels are requested.
    Never,
}

/// How to handle a task with fewer rows than its subset selects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Shortage {
    /// Return an error: the selection from incomplete files would differ from upstream's.
    #[default]
    Refuse,
    /// Use the available rows.
    Accept,
}

/// Options for reading a task. The default accepts only complete and intact files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadOptions {
    /// Number of bad rows that are skipped; one more is an error. A row that is bad apart from its
    /// images is missing when samples are selected, so the selection may differ from upstream's.
    pub max_bad_rows: usize,
    /// How images are decoded, also for the check.
    pub image_options: ImageOptions,
    /// When images are checked.
    pub image_check: ImageCheck,
    /// How to handle too few rows.
    pub shortage: Shortage,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            max_bad_rows: 0,
            image_options: ImageOptions::as_stored(),
            image_check: ImageCheck::default(),
            shortage: Shortage::default(),
        }
    }
}
