//! How far a capture is, and where its time goes.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use examples_answer::progress_lines::{ProgressLines, say};

/// A bar on stderr and a clock.
#[derive(Debug)]
pub struct CaptureProgress {
    bar: ProgressBar,
    lines: ProgressLines,
    what: &'static str,
    started: Instant,
}

impl CaptureProgress {
    /// A bar of `total` positions or questions, `done` of which an earlier run finished.
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

    /// Moves on by `done`; `left_out` gave nothing so far.
    pub fn step(&mut self, done: usize, left_out: usize) {
        if left_out > 0 {
            self.bar.set_message(format!("({left_out} left out)"));
        }
        self.bar.inc(done as u64);
        self.lines.step(&self.bar, self.what);
    }

    /// Says something.
    pub fn note(&self, text: &str) {
        say(&self.bar, text);
    }

    /// Removes the bar; gives the time since it was there.
    pub fn finish(&self) -> Duration {
        self.bar.finish_and_clear();
        self.started.elapsed()
    }
}
