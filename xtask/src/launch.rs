//! Runs a process to its end.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use vispec_report::record::RunFailure;

/// Number of lines of standard error kept from a failed process.
const TAIL: usize = 20;

/// How a process ended.
pub(crate) enum Outcome {
    /// With exit code 0.
    Success,
    /// In any other way.
    Failure(RunFailure),
}

/// Runs a process to its end. Passes each line of its standard error to `show`, and keeps the last
/// ones.
pub(crate) fn launch(mut command: Command, show: impl Fn(&str)) -> Outcome {
    let failed =
        |code, tail: VecDeque<String>| Outcome::Failure(RunFailure::new(code, tail.into()));
    let started = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match started {
        Ok(child) => child,
        Err(error) => {
            let program = command.get_program().to_string_lossy().into_owned();
            let line = format!("{program} could not be started: {error}");
            return failed(None, VecDeque::from([line]));
        }
    };
    let mut tail = VecDeque::new();
    if let Some(stderr) = child.stderr.take() {
        // Progress bars end lines with a carriage return.
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            let text = String::from_utf8_lossy(&line);
            let text = text.trim_end().rsplit('\r').next().unwrap_or_default();
            show(text);
            if tail.len() == TAIL {
                tail.pop_front();
            }
            tail.push_back(text.to_owned());
        }
    }
    match child.wait() {
        Ok(status) if status.success() => Outcome::Success,
        Ok(status) => {
            if tail.is_empty() {
                tail.push_back(status.to_string());
            }
            failed(status.code(), tail)
        }
        Err(error) => {
            tail.push_back(error.to_string());
            failed(None, tail)
        }
    }
}
