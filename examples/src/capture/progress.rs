//! How far a capture is, and where its time goes.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::progress_lines::ProgressLines;

/// A bar on stderr and a clock.
#[derive(Debug)]
pub struct CaptureProgress {
    bar: ProgressBar,
    lines: ProgressLines,
    started: Instant,
}

impl CaptureProgress {
    /// A bar of `total` positions, `done` of which an earlier run captured.
    #[must_use]
    pub fn new(total: usize, done: usize) -> Self {
        let bar = ProgressBar::new(total as u64).with_position(done as u64);
        let style = "{wide_bar} {pos}/{len} {per_sec} {eta} left {msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.reset_eta();
        Self {
            bar,
            lines: ProgressLines::default(),
            started: Instant::now(),
        }
    }

    /// Counts a position; `left_out` positions gave no sample.
    pub fn step(&mut self, left_out: usize) {
        if left_out > 0 {
            self.bar.set_message(format!("({left_out} left out)"));
        }
        self.bar.inc(1);
        self.lines.step(&self.bar, "positions");
    }

    /// Removes the bar; gives the time since it was there.
    #[must_use]
    pub fn finish(&self) -> Duration {
        self.bar.finish_and_clear();
        self.started.elapsed()
    }
}
