//! Progress of a training run in steps.

use indicatif::{ProgressBar, ProgressStyle};

use examples_answer::progress_lines::{ProgressLines, say};

/// A progress bar on stderr, or occasional lines if stderr is not a terminal.
#[derive(Debug)]
pub struct StepBar {
    bar: ProgressBar,
    lines: ProgressLines,
}

impl Default for StepBar {
    fn default() -> Self {
        let bar = ProgressBar::no_length();
        if let Ok(style) = ProgressStyle::with_template(
            "{elapsed_precise} {wide_bar} {pos}/{len} steps, {eta} left  {msg}",
        ) {
            bar.set_style(style);
        }
        Self {
            bar,
            lines: ProgressLines::default(),
        }
    }
}

impl StepBar {
    /// Starts, or resumes, at `step` of `n_steps`.
    pub fn start(&self, step: usize, n_steps: usize) {
        self.bar.set_length(n_steps as u64);
        self.bar.set_position(step as u64);
        self.bar.reset_eta();
    }

    /// Marks `step`, counted from 0, as done.
    pub fn step(&mut self, step: usize, message: String) {
        self.bar.set_position(step as u64 + 1);
        self.bar.set_message(message);
        self.lines.step(&self.bar, "steps");
    }

    /// Sets the message next to the bar.
    pub fn message(&self, message: String) {
        self.bar.set_message(message);
    }

    /// Writes a line above the bar.
    pub fn say(&self, line: &str) {
        say(&self.bar, line);
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
