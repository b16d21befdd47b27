//! Makes a tiny target: gives a small model more layers and teaches it to tell drawn scenes.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use vispec_examples::failure::{Failure, exit_code};
use vispec_examples::progress_lines::{ProgressLines, say};
use vispec_models::DeviceSpec;
use vispec_train::run::Ended;
use vispec_train::target::{
    Judgement, MakeTargetConfig, TargetObserver, TargetStep, TargetTrainer,
};

/// Make a tiny target that tells drawn scenes of few and of many image tokens
///
/// Started again with the same flags, an interrupted run goes on where its state was saved last.
#[derive(Parser, Debug)]
#[command(version)]
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
    let flags = Flags::parse();
    exit_code(|| run(&flags))
}

fn run(flags: &Flags) -> Result<(), Failure> {
    let config = MakeTargetConfig::read(&flags.config)?;
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    ctrlc::set_handler(move || asked.store(true, Ordering::Relaxed))?;

    let mut view = View::new();
    let mut trainer = TargetTrainer::open(config, &flags.out, &flags.device.open()?)?;
    let ended = trainer.run(&stop, &mut view)?;
    view.bar.finish_and_clear();
    if ended == Ended::Interrupted {
        return Err(Failure::Other(anyhow::anyhow!(
            "interrupted; the same command goes on from there"
        )));
    }
    Ok(())
}

/// What a user sees on stderr.
struct View {
    bar: ProgressBar,
    lines: ProgressLines,
}

impl View {
    fn new() -> Self {
        let bar = ProgressBar::no_length();
        if let Ok(style) = ProgressStyle::with_template(
            "{elapsed_precise} {wide_bar} {pos}/{len} steps, {eta} left  {msg}",
        ) {
            bar.set_style(style);
        }
        Self {
            bar,
            lines: ProgressLines::default(),
        }
    }
}

impl TargetObserver for View {
    fn started(&mut self, step: usize, n_steps: usize) {
        self.bar.set_length(n_steps as u64);
        self.bar.set_position(step as u64);
        self.bar.reset_eta();
    }

    fn step(&mut self, record: &TargetStep) {
        self.bar.set_position(record.step as u64 + 1);
        self.bar.set_message(format!("loss {:.3}", record.loss));
        self.lines.step(&self.bar, "steps");
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
        say(&self.bar, &line);
    }
}
