//! Runs steps.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

use super::state::{Marker, State};
use super::{Step, Work};
use crate::launch::{Outcome, launch};
use crate::line_watcher::{LOOK_EVERY, LineWatcher};
use crate::programs::Programs;
use crate::sweep;

/// A finished step.
#[derive(Debug)]
pub(crate) struct Done {
    /// Name of the step.
    pub(crate) name: String,
    /// Its marker.
    pub(crate) marker: Marker,
    /// Seconds that it took.
    pub(crate) seconds: f64,
}

/// Runs steps one after another.
pub(crate) struct Runner<'a> {
    state: &'a State,
    programs: &'a Programs,
}

impl<'a> Runner<'a> {
    pub(crate) fn new(state: &'a State, programs: &'a Programs) -> Self {
        Self { state, programs }
    }

    /// Runs the unfinished steps.
    #[expect(clippy::print_stdout, reason = "output of the program")]
    pub(crate) fn run(&self, steps: &[Step]) -> Result<Vec<Done>> {
        let mut done: Vec<Done> = Vec::new();
        let mut pace = Pace::default();
        for (idx, step) in steps.iter().enumerate() {
            let place = format!("{}/{} {}", idx + 1, steps.len(), step.name);
            let (marker, seconds) = match self.finished(step)? {
                Some((marker, seconds)) => {
                    println!("{place}: already done ({seconds:.1} s)");
                    (marker, seconds)
                }
                None => {
                    println!("{place}: {}", pace.left(&steps[idx..]));
                    let (marker, seconds) = self.do_step(step)?;
                    println!("{place}: done in {seconds:.1} s");
                    (marker, seconds)
                }
            };
            pace.add(step.units, seconds);
            done.push(Done {
                name: step.name.clone(),
                marker,
                seconds,
            });
        }
        Ok(done)
    }

    /// Returns the marker of a step that was finished with its current inputs, and its seconds.
    fn finished(&self, step: &Step) -> Result<Option<(Marker, f64)>> {
        let marker = self.state.marker(&step.name)?;
        Ok(marker.and_then(|marker| {
            let is_current = marker.key == step.key && step.output.exists();
            let seconds = marker.seconds.filter(|_| is_current)?;
            Some((marker, seconds))
        }))
    }

    #[expect(clippy::print_stdout, reason = "output of the program")]
    fn do_step(&self, step: &Step) -> Result<(Marker, f64)> {
        let before = self.state.marker(&step.name)?;
        let resumed = before.is_some_and(|marker| marker.key == step.key) && step.output.exists();
        if !resumed && step.output.exists() {
            let aside = self.state.set_aside(&step.name, &step.output)?;
            println!(
                "{}: the existing output was made with other inputs and has been moved to {}",
                step.name,
                aside.display()
            );
        }
        let mut marker = Marker {
            key: step.key.clone(),
            seconds: None,
            resumed,
        };
        self.state.write(&step.name, &marker)?;
        let started = Instant::now();
        match &step.work {
            Work::Program {
                program,
                arguments,
                lines,
            } => {
                let mut command = self.programs.command(program);
                command.args(arguments);
                let bar = step_bar(lines.as_ref().map(|(_, count)| *count));
                let watcher = lines.as_ref().map(|(path, _)| {
                    let bar = bar.clone();
                    LineWatcher::start(path.clone(), move |lines| bar.set_position(lines))
                });
                let outcome = launch(command, |line| bar.set_message(line.to_owned()));
                if let Some(watcher) = watcher {
                    watcher.finish();
                }
                bar.finish_and_clear();
                if let Outcome::Failure(failure) = outcome {
                    let tail = failure.stderr_tail.join("\n");
                    bail!("{}: {program} failed:\n{tail}", step.name);
                }
            }
            Work::Sweep { draft, text } => self.sweep(step, draft, text)?,
        }
        let seconds = started.elapsed().as_secs_f64();
        marker.seconds = Some(seconds);
        self.state.write(&step.name, &marker)?;
        Ok((marker, seconds))
    }

    fn sweep(&self, step: &Step, (trained, named): &(PathBuf, PathBuf), text: &str) -> Result<()> {
        copy_files(trained, named)?;
        let dir = &step.output;
        fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
        let file = dir.join("sweep.toml");
        fs::write(&file, text).with_context(|| file.display().to_string())?;
        sweep::run(&sweep::Flags {
            file,
            out: Some(dir.clone()),
            evaluate: Some(self.programs.path("evaluate")),
            list: false,
        })
        .with_context(|| step.name.clone())
    }
}

/// Speed of steps on this machine.
#[derive(Default)]
struct Pace {
    units: u64,
    seconds: f64,
}

impl Pace {
    fn add(&mut self, units: u64, seconds: f64) {
        self.units += units;
        self.seconds += seconds;
    }

    /// Estimates from earlier steps how long the remaining steps will take.
    fn left(&self, steps: &[Step]) -> String {
        if self.units == 0 {
            return "starts".to_owned();
        }
        let units: u64 = steps.iter().map(|step| step.units).sum();
        let seconds = self.seconds / self.units as f64 * units as f64;
        format!(
            "starts, about {:.0} min left in total",
            (seconds / 60.0).ceil()
        )
    }
}

/// Creates a progress bar, or a spinner if the length is unknown.
fn step_bar(len: Option<u64>) -> ProgressBar {
    let (bar, template) = match len {
        Some(len) => (
            ProgressBar::new(len),
            "{elapsed} {bar:30} {pos}/{len} {eta} left {wide_msg}",
        ),
        None => (ProgressBar::new_spinner(), "{elapsed} {spinner} {wide_msg}"),
    };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(LOOK_EVERY);
    bar
}

/// Copies the files of a directory.
fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| to.display().to_string())?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let path = entry?.path();
        let place = to.join(path.file_name().unwrap_or_default());
        fs::copy(&path, &place).with_context(|| path.display().to_string())?;
    }
    Ok(())
}
