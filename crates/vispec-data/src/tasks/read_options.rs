//! How strictly the files of a task are read.

use vispec_processor::ImageOptions;

/// When images are decoded to see whether they are sound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ImageCheck {
    /// Each image as its sample is read, so that a damaged one counts as a bad row there.
    #[default]
    WithSample,
    /// Not before somebody asks for the pixels.
    Never,
}

/// What to do if a task has fewer rows than its subset takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Shortage {
    /// An error: from incomplete files the choice would be another one than upstream's.
    #[default]
    Refuse,
    /// Take what there is.
    Accept,
}

/// How to read a task. The default refuses everything that is not as published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadOptions {
    /// Bad rows that are left out; one more is an error. A row that is bad beyond its images is
    /// not there when samples are chosen, so the choice may differ from upstream's.
    pub max_bad_rows: usize,
    /// How images are decoded, to check them as well.
    pub image_options: ImageOptions,
    /// When images are checked.
    pub image_check: ImageCheck,
    /// What to do about too few rows.
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
