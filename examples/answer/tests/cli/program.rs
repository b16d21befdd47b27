//! Runs a binary and checks the outcome.

use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// Limit of a run's address space: enough for the tiny models, but too small for a program that
/// trusts the size claimed by its input.
const ADDRESS_SPACE_KIB: u64 = 2 << 20;

pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures")
}

pub fn model(name: &str) -> PathBuf {
    fixtures().join("models").join(name)
}

pub fn draft(name: &str) -> PathBuf {
    fixtures().join("drafts").join(name)
}

/// Returns the image of a case such as `qwen-tied/img-short`.
pub fn image(case: &str) -> PathBuf {
    fixtures().join("cases").join(case).join("image_0.png")
}

/// One of the binaries with its arguments.
#[derive(Debug)]
pub struct Program {
    bin: &'static str,
    args: Vec<OsString>,
}

/// Outcome of a run.
#[derive(Debug)]
pub struct Outcome {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Program {
    /// A binary that must be built with the tests.
    pub fn new(bin: &'static str) -> Self {
        Self {
            bin,
            args: Vec::new(),
        }
    }

    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments separated by spaces.
    pub fn args(self, args: &str) -> Self {
        args.split_whitespace().fold(self, Self::arg)
    }

    pub fn path(self, flag: &str, path: &Path) -> Self {
        self.arg(flag).arg(path)
    }

    pub fn prompt(self, text: &str) -> Self {
        self.arg("--prompt").arg(text)
    }

    pub fn image(self, path: &Path) -> Self {
        self.path("--image", path)
    }

    pub fn draft(self, name: &str) -> Self {
        self.path("--draft", &draft(name))
    }

    /// Runs with bounded memory.
    pub fn run(&self) -> Outcome {
        Outcome::from(self.command().output().unwrap())
    }

    /// Runs with a closed stdout.
    pub fn run_into_closed_pipe(&self) -> Outcome {
        let mut command = self.command();
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        Outcome::from(child.wait_with_output().unwrap())
    }

    /// Runs with `text` on stdin.
    pub fn run_with_input(&self, text: &str) -> Outcome {
        let mut command = self.command();
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(text.as_bytes()).unwrap();
        drop(stdin);
        Outcome::from(child.wait_with_output().unwrap())
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new("sh");
        command
            .arg("-c")
            .arg(format!("ulimit -v {ADDRESS_SPACE_KIB}; exec \"$0\" \"$@\""))
            .arg(self.bin)
            .args(&self.args)
            // Nothing listens there, so any network access fails immediately.
            .env("HF_ENDPOINT", "http://127.0.0.1:9")
            .env("HF_HOME", "/nonexistent")
            // Measured times are saved here instead of in the user's home directory.
            .env("XDG_CACHE_HOME", env!("CARGO_TARGET_TMPDIR"))
            .env("RUST_BACKTRACE", "0")
            // Every thread reserves address space, even if it uses little.
            .env("RAYON_NUM_THREADS", "2");
        command
    }

    /// Runs with `--json` and returns the object from stdout.
    #[track_caller]
    pub fn json(self) -> Value {
        let outcome = self.arg("--json").run();
        outcome.assert_success();
        serde_json::from_str(&outcome.stdout).unwrap()
    }
}

impl From<Output> for Outcome {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Outcome {
    #[track_caller]
    pub fn assert_success(&self) {
        assert_eq!(self.code, Some(0), "{self:?}");
    }

    /// Checks that the run ended with `code` and one message that contains all `names`.
    #[track_caller]
    pub fn assert_refused(&self, what: &str, code: i32, names: &[&str]) {
        let context = format!("{what}: {self:#?}");
        assert!(!self.stderr.contains("panicked"), "{context}");
        assert_eq!(self.code, Some(code), "{context}");
        assert_eq!(self.stdout, "", "{context}");
        let messages = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("error: "));
        assert_eq!(messages.count(), 1, "{context}");
        for name in names {
            assert!(self.stderr.contains(name), "no {name:?}: {context}");
        }
    }
}
