//! The flag for tasks with incomplete files.

use clap::Args;
use vispec_data::Shortage;

/// How to handle too few rows.
#[derive(Args, Debug, Clone, Copy)]
pub struct ShortageFlag {
    /// Use the available rows if a task's files have fewer rows than its subset selects; this
    /// changes the selection of samples
    #[arg(long)]
    accept_shortage: bool,
}

impl ShortageFlag {
    /// Returns the corresponding option of the task readers.
    #[must_use]
    pub fn shortage(self) -> Shortage {
        if self.accept_shortage {
            Shortage::Accept
        } else {
            Shortage::Refuse
        }
    }
}
