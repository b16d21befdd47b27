//! The flag for tasks of which not all files are there.

use clap::Args;
use vispec_data::Shortage;

/// What to do about too few rows.
#[derive(Args, Debug, Clone, Copy)]
pub struct ShortageFlag {
    /// Take what there is if a task's files have fewer rows than its subset takes; the choice of
    /// samples is then another one
    #[arg(long)]
    accept_shortage: bool,
}

impl ShortageFlag {
    /// The choice as the readers of tasks know it.
    #[must_use]
    pub fn shortage(self) -> Shortage {
        if self.accept_shortage {
            Shortage::Accept
        } else {
            Shortage::Refuse
        }
    }
}
