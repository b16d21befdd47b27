//! Progress display of a sweep.

use std::path::{Path, PathBuf};

use indicatif::{HumanDuration, MultiProgress, ProgressBar, ProgressStyle};
use vispec_report::record::RECORDS_FILE;

use super::plan::{Plan, PlannedCell};
use crate::line_watcher::{LOOK_EVERY, LineWatcher, count_lines};

/// A progress bar for the sweep, and one for the running cell.
pub(super) struct SweepProgress {
    bars: MultiProgress,
    total: ProgressBar,
}

/// The progress bar of a running cell. Records are counted in the cell's file, so the sweep does
/// not depend on the format in which `evaluate` prints its progress.
pub(super) struct CellBar {
    bar: ProgressBar,
    watcher: LineWatcher,
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl SweepProgress {
    pub(super) fn new(plan: &Plan, out: &Path) -> Self {
        let bars = MultiProgress::new();
        let total = bars.add(ProgressBar::new(plan.prompts()));
        total.set_style(style(
            "sweep {wide_bar} {pos}/{len} prompts, {elapsed} elapsed, {eta} left",
        ));
        // Records of an earlier run do not count for the speed.
        let there: u64 = plan
            .cells
            .iter()
            .map(|cell| count_lines(&records_file(out, cell)).min(cell.settings.prompts))
            .sum();
        total.set_position(there);
        total.reset_eta();
        total.enable_steady_tick(LOOK_EVERY);
        Self { bars, total }
    }

    /// Shows how a cell ended and, without a terminal for bars, the progress of the sweep.
    pub(super) fn ended(&self, how: &str) {
        if !self.bars.is_hidden() {
            return self.say(how);
        }
        let (done, planned) = (self.total.position(), self.total.length().unwrap_or(0));
        let left = HumanDuration(self.total.eta());
        self.say(&format!("{done}/{planned} prompts, {left} left: {how}"));
    }

    /// Prints a line above the bars, or to standard error if there is no terminal.
    #[expect(clippy::print_stderr, reason = "output of the program")]
    pub(super) fn say(&self, line: &str) {
        if self.bars.is_hidden() {
            eprintln!("{line}");
        } else {
            // A line that cannot be shown is repeated in the summary.
            drop(self.bars.println(line));
        }
    }

    /// Adds a bar for a cell.
    pub(super) fn begin(&self, cell: &PlannedCell, dir: &Path) -> CellBar {
        let path = dir.join(RECORDS_FILE);
        let prompts = cell.settings.prompts;
        let bar = self.bars.add(ProgressBar::new(prompts));
        bar.set_style(style("{prefix} {bar:20} {pos}/{len} {wide_msg}"));
        bar.set_prefix(cell.settings.directory_name());
        let (shown, total) = (bar.clone(), self.total.clone());
        let mut seen = count_lines(&path).min(prompts);
        let watcher = LineWatcher::start(path, move |lines| {
            let records = lines.min(prompts);
            shown.set_position(records);
            total.inc(records.saturating_sub(seen));
            seen = seen.max(records);
        });
        CellBar { bar, watcher }
    }

    pub(super) fn finish(self) {
        self.total.finish();
    }
}

impl CellBar {
    /// Shows the last line of the process.
    pub(super) fn show(&self, line: &str) {
        self.bar.set_message(line.to_owned());
    }

    /// Counts once more and removes the bar.
    pub(super) fn finish(self) {
        self.watcher.finish();
        self.bar.finish_and_clear();
    }
}

fn records_file(out: &Path, cell: &PlannedCell) -> PathBuf {
    out.join(cell.settings.directory_name()).join(RECORDS_FILE)
}
