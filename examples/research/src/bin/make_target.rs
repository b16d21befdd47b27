//! Makes a tiny target: gives a small model more layers and teaches it to tell drawn scenes.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use examples_answer::command_line;
use examples_answer::failure::Failure;
use examples_research::ranks::{Interrupted, exit_code};
use examples_research::step_bar::StepBar;
use vispec_models::DeviceSpec;
use vispec_train::ranks::Ranks;
use vispec_train::run::Ended;
use vispec_train::target::scenes::{Judgement, MakeTargetConfig, SceneCourse};
use vispec_train::target::{TargetObserver, TargetStep, Trainer};

/// Make a tiny target that tells drawn scenes of few and of many image tokens
///
/// Started again with the same flags, an interrupted run goes on where its state was saved last.
///
/// Built with the feature mpi and started by mpirun or srun, the processes share the workers of the
/// config; the outcome is that of one process.
#[derive(Parser, Debug)]
struct Flags {
    /// Config of the run, such as examples/configs/make_target/scenes.toml; its paths are relative to
    /// the current directory
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Where metrics and state go, and the target to its folder checkpoint
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Where to compute
    #[arg(long, default_value = "flex")]
    device: DeviceSpec,
}

fn main() -> ExitCode {
    let flags: Flags = command_line::parse(env!("CARGO_BIN_NAME"));
    exit_code(|ranks| run(&flags, ranks))
}

fn run(flags: &Flags, ranks: Ranks) -> Result<(), Failure> {
    let inputs = || -> Result<_, Failure> {
        Ok((MakeTargetConfig::read(&flags.config)?, flags.device.open()?))
    };
    let (config, device) = ranks.all_succeed(inputs())?;
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    ctrlc::set_handler(move || asked.store(true, Ordering::Relaxed))?;

    let mut view = View(StepBar::default());
    let mut trainer = Trainer::<SceneCourse>::open(config, &flags.out, &device, ranks)?;
    let ended = trainer.run(&stop, &mut view)?;
    view.0.finish();
    if ended == Ended::Interrupted {
        let step = trainer.steps();
        return Err(Interrupted { step }.into());
    }
    Ok(())
}

/// What a user sees on stderr.
struct View(StepBar);

impl TargetObserver<Judgement> for View {
    fn started(&mut self, step: usize, n_steps: usize) {
        self.0.start(step, n_steps);
    }

    fn step(&mut self, record: &TargetStep) {
        self.0.step(record.step, format!("loss {:.3}", record.loss));
    }

    fn judged(&mut self, judgement: &Judgement) {
        let line = format!(
            "stage {}, {} image tokens: held-out loss {:.3}, {:.1} % of tokens right, {:.1} % of answers",
            judgement.stage,
            judgement.image_tokens,
            judgement.loss,
            100.0 * judgement.right_tokens,
            100.0 * judgement.right_answers,
        );
        self.0.say(&line);
    }
}
