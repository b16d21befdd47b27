//! Progress for logs: lines of text if no terminal shows a bar.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;

/// Time between lines.
const PAUSE: Duration = Duration::from_secs(30);

/// Prints the progress of a hidden bar to stderr at intervals.
#[derive(Debug)]
pub struct ProgressLines {
    last: Instant,
}

impl Default for ProgressLines {
    fn default() -> Self {
        Self {
            last: Instant::now(),
        }
    }
}

impl ProgressLines {
    /// Writes a line if the bar is hidden and the last line is at least half a minute old.
    pub fn step(&mut self, bar: &ProgressBar, what: &str) {
        if bar.is_hidden() && self.last.elapsed() >= PAUSE {
            self.last = Instant::now();
            say(bar, &line(bar, what));
        }
    }
}

fn line(bar: &ProgressBar, what: &str) -> String {
    let (done, left) = (bar.position(), bar.eta().as_secs());
    let of = bar.length().unwrap_or(done);
    let left = format!("{}:{:02}:{:02}", left / 3600, left / 60 % 60, left % 60);
    let per_minute = 60.0 * bar.per_sec();
    let message = bar.message();
    format!("{done}/{of} {what}, {per_minute:.1} a minute, {left} left {message}")
}

/// Writes a line above a bar, or to stderr if no terminal shows the bar.
#[expect(clippy::print_stderr, reason = "a program's progress")]
pub fn say(bar: &ProgressBar, text: &str) {
    if bar.is_hidden() {
        eprintln!("{text}");
    } else {
        bar.println(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_say_how_far_a_bar_is() {
        let bar = ProgressBar::hidden();
        bar.set_length(20);
        bar.set_position(5);
        bar.set_message("loss 1.250");
        let line = line(&bar, "steps");
        assert!(line.starts_with("5/20 steps, "), "{line}");
        assert!(line.ends_with(" left loss 1.250"), "{line}");
    }
}
