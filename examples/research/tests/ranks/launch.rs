//! Starting programs of this package with `mpirun`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Maximum time in which a failed run must end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

/// Returns `mpirun` for more processes than there may be cores, each with one thread.
pub(crate) fn mpirun() -> Command {
    let mut command = Command::new("mpirun");
    command.args(["--oversubscribe", "--bind-to", "none"]);
    command
        .env("OMPI_ALLOW_RUN_AS_ROOT", "1")
        .env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")
        .env("OMPI_MCA_mpi_yield_when_idle", "1")
        // No other machine is used, and there is no program to reach one.
        .env("OMPI_MCA_plm_rsh_agent", "false")
        .env("RAYON_NUM_THREADS", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// A running process.
pub(crate) struct Started(pub(crate) Child);

impl Started {
    /// Waits for its end; the test fails if it takes longer than `patience`.
    pub(crate) fn end(mut self, patience: Duration) -> Output {
        let started = Instant::now();
        while self.0.try_wait().unwrap().is_none() {
            if started.elapsed() > patience {
                self.0.kill().unwrap();
                panic!("still running after {patience:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.0.wait_with_output().unwrap()
    }

    pub(crate) fn succeed(self) {
        let output = self.end(20 * PATIENCE);
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{message}");
    }

    /// Waits for its failure; returns its output.
    pub(crate) fn fail(self) -> String {
        let output = self.end(PATIENCE);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{message}");
        message
    }
}

/// Captured samples and the settings for training on them.
pub(crate) struct Run {
    dir: TempDir,
    settings: Vec<String>,
}

impl Run {
    pub(crate) fn new(storage: &str) -> Self {
        let run = Self {
            dir: tempfile::tempdir().unwrap(),
            settings: [
                "optimizer.epochs=3",
                "optimizer.learning_rate=1e-3",
                "data.accumulate=3",
                "data.held_out=0.1",
                "evaluation.drafted_samples=1",
                "checkpoint.every_steps=2",
            ]
            .map(str::to_owned)
            .to_vec(),
        };
        let mut command = Command::new(env!("CARGO_BIN_EXE_capture"));
        command.args(Self::capture_flags(storage));
        let command = command.arg("--out").arg(run.data());
        let output = command.output().unwrap();
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{message}");
        run
    }

    /// Adds a setting.
    pub(crate) fn with(mut self, setting: &str) -> Self {
        self.settings.push(setting.to_owned());
        self
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.out("data")
    }

    pub(crate) fn out(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn capture_flags(storage: &str) -> Vec<String> {
        let target = repository("fixtures/models/qwen-tied");
        let flags = [
            "run --source scenes-long --scenes 40 --limit 16 --stage 2 --max-new-tokens 24",
            "--min-pixels 3136 --max-pixels 12544 --shard-positions 4 --storage",
        ];
        let words = flags.iter().flat_map(|flags| flags.split(' '));
        let words = words.map(str::to_owned);
        let rest = [
            storage.to_owned(),
            "--target".to_owned(),
            target.to_str().unwrap().to_owned(),
        ];
        words.chain(rest).collect()
    }

    /// Repeats the capture of this run with `count` processes.
    pub(crate) fn capture(&self, count: usize, out: &Path) -> Started {
        let mut command = mpirun();
        command.args(["-n", &count.to_string()]);
        command.arg(env!("CARGO_BIN_EXE_capture"));
        command.args(Self::capture_flags("compact"));
        Started(command.arg("--out").arg(out).spawn().unwrap())
    }

    /// Returns the flags of `train`.
    pub(crate) fn flags(&self, out: &Path) -> Vec<String> {
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let mut flags = vec![
            "--config".to_owned(),
            path(&repository("examples/configs/train/vispec-stage2.toml")),
            "--target".to_owned(),
            path(&repository("fixtures/models/qwen-tied")),
            "--data".to_owned(),
            path(&self.data()),
            "--out".to_owned(),
            path(out),
        ];
        for setting in &self.settings {
            flags.extend(["--set".to_owned(), setting.clone()]);
        }
        flags
    }

    /// Trains with `count` processes; a single process runs without a launcher.
    pub(crate) fn train(&self, count: usize, out: &Path) -> Started {
        let mut command = if count == 1 {
            let mut command = Command::new(env!("CARGO_BIN_EXE_train"));
            command.stdout(Stdio::null()).stderr(Stdio::piped());
            command
        } else {
            let mut command = mpirun();
            command.args(["-n", &count.to_string()]);
            command.arg(env!("CARGO_BIN_EXE_train"));
            command
        };
        Started(command.args(self.flags(out)).spawn().unwrap())
    }
}

/// Merges the shares of a capture.
pub(crate) fn merge(shares: &[PathBuf], out: &Path) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_capture"));
    command.arg("merge").arg("--out").arg(out).args(shares);
    let output = command.output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{message}");
}

/// Returns steps with their losses, and epochs, without values that depend on the clock.
pub(crate) fn curve(out: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let mut record: Value = serde_json::from_str(line).unwrap();
            let fields = record.as_object_mut().unwrap();
            for of_the_clock in ["tokens_per_second", "ranks"] {
                fields.remove(of_the_clock);
            }
            record
        })
        .collect()
}

pub(crate) fn same_drafts(one: &Path, other: &Path) {
    for file in [
        "last/model.safetensors",
        "last/config.json",
        "best/model.safetensors",
    ] {
        let read = |out: &Path| std::fs::read(out.join(file)).unwrap();
        assert_eq!(read(one), read(other), "{file}");
    }
}
