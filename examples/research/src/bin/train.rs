//! Trains a draft on captured samples.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use examples_answer::command_line;
use examples_answer::failure::Failure;
use examples_research::ranks::{Interrupted, exit_code};
use examples_research::step_bar::StepBar;
use vispec_models::{DeviceSpec, DownloadProgress, DtypeChoice, TargetText, resolve_checkpoint};
use vispec_train::data::Captures;
use vispec_train::ranks::Ranks;
use vispec_train::run::{Ended, EpochRecord, Observer, RunPaths, StepRecord, Trainer};
use vispec_train::{Start, StartPlace, TrainConfig, TrainError};

/// Train a ViSpec, EAGLE-2, EAGLE-3 or Medusa draft
///
/// An interrupted run resumes from its last saved state when started again with the same flags.
///
/// When built with the feature mpi and started by mpirun or srun, the processes share the batches
/// of each step (data.accumulate); the result is the same as with one process.
#[derive(Parser, Debug)]
struct Flags {
    /// Config of the run; examples/configs/train has upstream's configs
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Override a value of the config, such as optimizer.learning_rate=1e-4; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Directory of a capture, in any storage; repeat the flag for several captures
    #[arg(long, value_name = "DIR", required = true)]
    data: Vec<PathBuf>,
    /// Target of the draft: a directory, or an id on the Hugging Face hub
    #[arg(long, value_name = "DIR|HUB_ID")]
    target: String,
    /// Draft to start from; without it, training starts from fresh weights
    #[arg(long, value_name = "DIR")]
    init: Option<PathBuf>,
    /// Directory for metrics, state and drafts; drafts go to its folders last and best
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Device to compute on
    #[arg(long, default_value = "flex")]
    device: DeviceSpec,
}

fn main() -> ExitCode {
    let flags: Flags = command_line::parse(env!("CARGO_BIN_NAME"));
    exit_code(|ranks| run(&flags, ranks))
}

/// The inputs of a run.
struct Inputs {
    config: TrainConfig,
    dir: PathBuf,
    target: TargetText,
    data: Captures,
}

impl Inputs {
    fn read(flags: &Flags) -> Result<Self, Failure> {
        let config = TrainConfig::read(&flags.config, &flags.set).map_err(|error| match error {
            TrainError::SettingForm { .. } => Failure::usage(error),
            error => Failure::Other(error.into()),
        })?;
        let dir = resolve_checkpoint(&flags.target, DownloadProgress::Bars)?;
        let target = TargetText::load(&dir, &flags.device.open()?, DtypeChoice::F32)?;
        let states = config.draft.states(target.decoder().layers)?;
        let data = Captures::open(&flags.data, &dir, &target, &states)?;
        Ok(Self {
            config,
            dir,
            target,
            data,
        })
    }
}

fn run(flags: &Flags, ranks: Ranks) -> Result<(), Failure> {
    let Inputs {
        config,
        dir,
        target,
        data,
    } = ranks.all_succeed(Inputs::read(flags))?;

    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    ctrlc::set_handler(move || asked.store(true, Ordering::Relaxed))?;

    let mut view = View(StepBar::default());
    let paths = RunPaths {
        out: flags.out.clone(),
    };
    let mut trainer = Trainer::open(config.clone(), &target, &data, paths, ranks, |vocabulary| {
        let place = StartPlace {
            target: &target,
            target_dir: &dir,
            vocabulary,
        };
        match &flags.init {
            Some(dir) => Start::from_checkpoint(dir, &config.draft, &place, config.seed),
            None => Start::fresh(&config.draft, &place, config.seed),
        }
    })?;
    let ended = trainer.run(&stop, &mut view)?;
    view.0.finish();
    if ended == Ended::Interrupted {
        let step = trainer.steps_done();
        return Err(Interrupted::Training { step }.into());
    }
    Ok(())
}

/// Progress on stderr.
struct View(StepBar);

fn shown(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}

impl Observer for View {
    fn started(&mut self, step: usize, n_steps: usize) {
        self.0.start(step, n_steps);
    }

    fn step(&mut self, record: &StepRecord) {
        let loss = shown(record.losses.map(|losses| losses.loss));
        let rate = record.tokens_per_second;
        self.0
            .step(record.step, format!("loss {loss}, {rate:.0} tokens/s"));
    }

    fn judging(&mut self, done: usize, of: usize) {
        self.0
            .message(format!("judging held-out sample {} of {of}", done + 1));
    }

    fn epoch(&mut self, record: &EpochRecord) {
        let held_out = record.held_out.as_ref();
        let losses = held_out.and_then(|held_out| held_out.losses);
        let line = format!(
            "epoch {}: loss {}, held out {}, top-1 {}, tau of chains {}, of trees {}{}; {} refused",
            record.epoch,
            shown(record.train.map(|losses| losses.loss)),
            shown(losses.map(|losses| losses.loss)),
            shown(losses.map(|losses| losses.top[0])),
            shown(held_out.and_then(|held_out| held_out.chain_tau)),
            shown(held_out.and_then(|held_out| held_out.tree_tau)),
            if record.best { " (best)" } else { "" },
            record.refused.len(),
        );
        self.0.say(&line);
    }
}
