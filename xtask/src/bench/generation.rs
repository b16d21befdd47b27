//! Measures whole generations with the program that users run: plain and speculative decoding.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use super::dtype::Dtype;
use super::machine::Machine;
use super::table::{NONE, Table, digits, percent, time};
use super::weights::LinearTensors;

/// One comparison to run.
#[derive(Clone, Debug)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) target: PathBuf,
    pub(super) draft: Option<PathBuf>,
    pub(super) prompt: String,
    pub(super) image: Option<PathBuf>,
    pub(super) max_new_tokens: usize,
    /// `--max-loss`, if not the default.
    pub(super) max_loss: Option<f64>,
    /// Number of runs; the median is reported.
    pub(super) repeats: usize,
}

/// The record of one generation by `generate --json`; see `examples_answer::record`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Record {
    pub(super) method: String,
    pub(super) new_tokens: usize,
    pub(super) tau: f64,
    pub(super) tokens_per_cycle: f64,
    pub(super) tokens_per_second: f64,
    pub(super) peak_rss_bytes: Option<u64>,
    pub(super) timings_ms: Timings,
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Timings {
    pub(super) load: f64,
    pub(super) preprocess: f64,
    pub(super) vision: f64,
    pub(super) prefill: f64,
}

/// The output of `generate --json --compare`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Compared {
    #[serde(flatten)]
    pub(super) speculative: Record,
    pub(super) baseline: Record,
    pub(super) identical: bool,
}

/// The runs of a case in one dtype.
pub(super) struct Outcome {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    /// Bytes of the linear layers that are read for each token.
    pub(super) weight_bytes: usize,
    pub(super) runs: Vec<Compared>,
}

impl Case {
    /// Runs the case in `dtype`.
    pub(super) fn run(&self, generate: &Path, dtype: Dtype) -> Result<Outcome> {
        // The costs of passes are measured again, so that trees suit this build on this machine.
        let scratch = tempfile::tempdir()?;
        let calibration = scratch.path().join("calibration.json");
        let run = |_| {
            let mut command = Command::new(generate);
            command.args(self.arguments(dtype, &calibration));
            compared(&mut command)
        };
        Ok(Outcome {
            name: self.name.clone(),
            dtype,
            weight_bytes: LinearTensors::read(&self.target)?.bytes(dtype),
            runs: (0..self.repeats.max(1)).map(run).collect::<Result<_>>()?,
        })
    }

    fn arguments(&self, dtype: Dtype, calibration: &Path) -> Vec<String> {
        let path = |path: &Path| path.display().to_string();
        let mut arguments = vec!["--target".to_owned(), path(&self.target)];
        match &self.draft {
            Some(draft) => arguments.extend(["--draft".to_owned(), path(draft)]),
            None => arguments.extend(["--method", "prompt-lookup"].map(str::to_owned)),
        }
        if let Some(image) = &self.image {
            arguments.extend(["--image".to_owned(), path(image)]);
        }
        for (flag, value) in [
            ("--prompt", self.prompt.clone()),
            ("--dtype", dtype.name().to_owned()),
            ("--total-token", "auto".to_owned()),
            ("--calibration", path(calibration)),
            ("--max-new-tokens", self.max_new_tokens.to_string()),
        ] {
            arguments.extend([flag.to_owned(), value]);
        }
        if let Some(max_loss) = self.max_loss {
            arguments.extend(["--max-loss".to_owned(), max_loss.to_string()]);
        }
        arguments.extend(["--json", "--compare"].map(str::to_owned));
        arguments
    }
}

fn compared(command: &mut Command) -> Result<Compared> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| program.clone())?;
    if !output.status.success() {
        let notes = String::from_utf8_lossy(&output.stderr);
        bail!("{program}: {}\n{}", output.status, notes.trim());
    }
    serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{program} did not print a comparison as JSON"))
}

impl Outcome {
    /// Adds a row about speed.
    pub(super) fn tabulate_speed(&self, machine: &Machine, table: &mut Table) {
        let plain = self.median(|run| run.baseline.tokens_per_second);
        let speculative = self.median(|run| run.speculative.tokens_per_second);
        let read = self.weight_bytes as f64 * plain / machine.bandwidth;
        // Greedy runs of one case take the same path, except for their trees.
        let identical = self.runs.iter().all(|run| run.identical);
        let first = self.runs.first().map(|run| &run.speculative);
        table.push([
            self.name.clone(),
            self.dtype.name().to_owned(),
            first.map_or(NONE.to_owned(), |first| first.method.clone()),
            first.map_or(NONE.to_owned(), |first| first.new_tokens.to_string()),
            digits(plain),
            percent(read),
            digits(speculative),
            format!("{:.2}", speculative / plain),
            digits(self.median(|run| run.speculative.tau)),
            digits(self.median(|run| run.speculative.tokens_per_cycle)),
            if identical { "yes" } else { "NO" }.to_owned(),
        ]);
    }

    /// Adds a row about start-up times and memory.
    pub(super) fn tabulate_start(&self, table: &mut Table) {
        let ms = |ms: f64| time(Duration::from_secs_f64(ms / 1e3));
        let first_token = self.median(|run| {
            let times = &run.baseline.timings_ms;
            times.preprocess + times.vision + times.prefill
        });
        let peak = self.runs.iter();
        let peak = peak.filter_map(|run| run.speculative.peak_rss_bytes).max();
        let megabytes = |bytes: f64| digits(bytes / 1e6);
        table.push([
            self.name.clone(),
            self.dtype.name().to_owned(),
            ms(self.median(|run| run.speculative.timings_ms.load)),
            ms(first_token),
            megabytes(self.weight_bytes as f64),
            peak.map_or(NONE.to_owned(), |bytes| megabytes(bytes as f64)),
        ]);
    }

    fn median(&self, figure: impl Fn(&Compared) -> f64) -> f64 {
        let mut figures: Vec<f64> = self.runs.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// Creates an empty table for [`Outcome::tabulate_speed`].
pub(super) fn speed_table() -> Table {
    Table::new(&[
        "models",
        "dtype",
        "method",
        "new tokens",
        "plain tok/s",
        "of bandwidth",
        "speculative tok/s",
        "ratio",
        "tau",
        "tokens per cycle",
        "identical",
    ])
}

/// Creates an empty table for [`Outcome::tabulate_start`].
pub(super) fn start_table() -> Table {
    Table::new(&[
        "models",
        "dtype",
        "load",
        "to first token",
        "weights per token, MB",
        "peak RSS, MB",
    ])
}
