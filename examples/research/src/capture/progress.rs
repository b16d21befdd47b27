//! Progress of a capture, and the time it takes.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use examples_answer::progress_lines::{ProgressLines, say};

/// A progress bar on stderr with a clock.
#[derive(Debug)]
pub struct CaptureProgress {
    bar: ProgressBar,
    lines: ProgressLines,
    what: &'static str,
    started: Instant,
}

impl CaptureProgress {
    /// Creates a bar of `total` positions or questions, of which an earlier run finished `done`.
    #[must_use]
    pub fn new(what: &'static str, total: usize, done: usize) -> Self {
        let bar = ProgressBar::new(total as u64).with_position(done as u64);
        let style = "{wide_bar} {pos}/{len} {per_sec} {eta} left {msg}";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        bar.reset_eta();
        Self {
            bar,
            lines: ProgressLines::default(),
            what,
            started: Instant::now(),
        }
    }

    /// Advances by `done`; `left_out` is the number skipped so far.
    pub fn step(&mut self, done: usize, left_out: usize) {
        if left_out > 0 {
            self.bar.set_message(format!("({left_out} left out)"));
        }
        self.bar.inc(done as u64);
        self.lines.step(&self.bar, self.what);
    }

    /// Prints a line above the bar.
    pub fn note(&self, text: &str) {
        say(&self.bar, text);
    }

    /// Removes the bar; returns the time since it was created.
    pub fn finish(&self) -> Duration {
        self.bar.finish_and_clear();
        self.started.elapsed()
    }
}
