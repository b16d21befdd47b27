//! Limits of the machine, and other facts needed to reproduce the figures.

use std::fmt::Write;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use vispec_kernels::measure::{Unit, dot_peak, read_bandwidth};
use vispec_kernels::{Isa, n_threads};

use super::table::{Table, digits};

/// The machine, measured in the same run as the benchmarks.
pub(super) struct Machine {
    pub(super) processor: String,
    pub(super) isa: &'static str,
    pub(super) threads: usize,
    /// Bytes per second.
    pub(super) bandwidth: f64,
    /// Operations per second.
    pub(super) f32_peak: f64,
    /// Operations per second.
    pub(super) bf16_peak: f64,
}

impl Machine {
    pub(super) fn measure() -> Self {
        let threads = n_threads();
        Self {
            processor: processor(),
            isa: Isa::detected().name(),
            threads,
            bandwidth: read_bandwidth(threads),
            f32_peak: dot_peak(Unit::F32, threads),
            bf16_peak: dot_peak(Unit::Bf16, threads),
        }
    }

    pub(super) fn peak(&self, unit: Unit) -> f64 {
        match unit {
            Unit::F32 => self.f32_peak,
            Unit::Bf16 => self.bf16_peak,
        }
    }

    pub(super) fn table(&self) -> Table {
        let mut table = Table::new(&["machine", "figure"]);
        table.push(["processor".to_owned(), self.processor.clone()]);
        table.push(["instruction set".to_owned(), self.isa.to_owned()]);
        table.push(["threads".to_owned(), self.threads.to_string()]);
        for (what, value, unit) in [
            ("read bandwidth", self.bandwidth, "GB/s"),
            ("peak in f32", self.f32_peak, "GFLOP/s"),
            ("peak in bf16", self.bf16_peak, "GFLOP/s"),
        ] {
            table.push([what.to_owned(), format!("{} {unit}", digits(value / 1e9))]);
        }
        table
    }
}

fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        (field.trim() == "model name").then(|| value.trim().to_owned())
    });
    model.unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// Returns the heading of a report: date, commit, command and load of the machine.
pub(super) fn heading(root: &Path, arguments: &[String]) -> Result<String> {
    let commit = git(root, &["rev-parse", "--short=10", "HEAD"])?;
    let changed = !git(root, &["status", "--porcelain"])?.is_empty();
    let mut text = String::from("# Benchmarks\n\n");
    writeln!(text, "* date: {} (UTC)", date(seconds(SystemTime::now())))?;
    let note = if changed {
        ", with uncommitted changes"
    } else {
        ""
    };
    writeln!(text, "* commit: {commit}{note}")?;
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    if let Some(minute) = load.split(' ').next() {
        writeln!(text, "* load before: {minute} runnable tasks on average")?;
    }
    writeln!(text, "* command: `cargo xtask {}`", arguments.join(" "))?;
    Ok(text)
}

fn git(root: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new("git")
        .current_dir(root)
        .args(arguments)
        .output();
    let output = output.context("could not run git to find the commit")?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Returns the seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Formats `seconds` since 1970 as day and minute.
pub(super) fn date(seconds: u64) -> String {
    let (mut days, minutes) = (seconds / 86_400, seconds % 86_400 / 60);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute) = (minutes / 60, minutes % 60);
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02}", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_follow_the_calendar() {
        assert_eq!(date(0), "1970-01-01 00:00");
        assert_eq!(date(951_782_399), "2000-02-28 23:59");
        assert_eq!(date(951_782_400), "2000-02-29 00:00");
        assert_eq!(date(1_735_689_599), "2024-12-31 23:59");
        assert_eq!(date(1_795_484_294), "2026-11-24 01:38");
    }

    #[test]
    fn a_heading_names_commit_and_command() {
        let text = heading(&crate::root(), &["bench".to_owned(), "--quick".to_owned()]).unwrap();
        assert!(text.contains("`cargo xtask bench --quick`"), "{text}");
    }
}
