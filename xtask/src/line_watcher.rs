//! Tracks the progress of another process by the lines of a file that it writes.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// Interval at which the file is polled.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A thread that counts the lines of a file periodically.
pub(crate) struct LineWatcher {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl LineWatcher {
    /// Starts to call `show` with the number of lines, 0 while there is no file.
    pub(crate) fn start(path: PathBuf, mut show: impl FnMut(u64) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                loop {
                    let last_look = stop.load(Ordering::Acquire);
                    show(count_lines(&path));
                    if last_look {
                        break;
                    }
                    thread::park_timeout(LOOK_EVERY);
                }
            }
        });
        Self { stop, thread }
    }

    /// Counts once more and stops.
    pub(crate) fn finish(self) {
        self.stop.store(true, Ordering::Release);
        self.thread.thread().unpark();
        // The thread holds no lock, and a panic in it does not matter.
        drop(self.thread.join());
    }
}

/// Counts the lines of a file; 0 if it does not exist.
pub(crate) fn count_lines(path: &Path) -> u64 {
    File::open(path).map_or(0, |file| {
        BufReader::new(file)
            .split(b'\n')
            .map_while(Result::ok)
            .count() as u64
    })
}
