//! Makes a target: adds layers to a small model and trains it to describe drawn scenes, or trains a
//! vision tower for a pretrained language model.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{ArgGroup, Parser};
use examples_answer::command_line;
use examples_answer::failure::Failure;
use examples_research::capture::progress::CaptureProgress;
use examples_research::ranks::{Interrupted, exit_code};
use examples_research::sight::{name_pictures, write_word_answers};
use examples_research::step_bar::StepBar;
use mimalloc::MiMalloc;
use vispec_data::icons::IconIndex;
use vispec_models::DeviceSpec;
use vispec_train::ranks::Ranks;
use vispec_train::run::Ended;
use vispec_train::target::pictures::{
    Learn, PictureConfig, PictureCourse, PictureJudgement, PictureTarget, Seen, join, prepare,
};
use vispec_train::target::scenes::{Judgement, MakeTargetConfig, SceneCourse};
use vispec_train::target::{Course, TargetObserver, TargetStep, Trainer};

/// The workers of a step allocate and free large tensors. The system's allocator returns their
/// memory each time, which takes a quarter of a step through a language model.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Default config of a target that learns to see.
const PICTURES: &str = include_str!("../../../configs/make_target/pictures.toml");

/// Make a tiny target that describes drawn scenes, or teach a pretrained language model to see
///
/// With --config alone, a small model learns to describe drawn scenes of few and of many image
/// tokens. With --language-model and --pictures, a vision tower is trained on the pictures of icon
/// sets for a language model that remains unchanged. With --language-model and --tower, both are
/// only joined to a checkpoint.
///
/// An interrupted run resumes from its last saved state when started again with the same flags.
///
/// When built with the feature mpi and started by mpirun or srun, the processes share the workers
/// of the config; the result is the same as with one process.
#[derive(Parser, Debug)]
#[command(group(ArgGroup::new("sight").args(["pictures", "tower"])))]
struct Flags {
    /// Config of the run, such as examples/configs/make_target/scenes.toml; its paths are relative
    /// to the current directory [default for pictures: examples/configs/make_target/pictures.toml]
    #[arg(long, value_name = "FILE", required_unless_present = "language_model")]
    config: Option<PathBuf>,
    /// Checkpoint in the LLaVA-1.5 layout whose language model learns to see; its vision tower is
    /// not used
    #[arg(long, value_name = "DIR", requires = "sight")]
    language_model: Option<PathBuf>,
    /// Directory with icon sets and names, as npm installs @iconify-json/* and emojibase-data
    #[arg(long, value_name = "DIR", requires = "language_model")]
    pictures: Option<PathBuf>,
    /// Trained vision tower of the language model: a folder vision-N of an earlier run
    #[arg(long, value_name = "DIR", requires = "language_model", conflicts_with_all = ["config", "stages"])]
    tower: Option<PathBuf>,
    /// Directory for metrics, state and targets; targets go to the folder checkpoint, or for
    /// pictures to checkpoint-N for N image tokens
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Stop after this number of stages of the config; later runs continue with the others
    /// [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    stages: Option<u16>,
    /// Device to compute on
    #[arg(long, default_value = "flex")]
    device: DeviceSpec,
}

fn main() -> ExitCode {
    let flags: Flags = command_line::parse(env!("CARGO_BIN_NAME"));
    exit_code(|ranks| run(&flags, &ranks))
}

fn run(flags: &Flags, ranks: &Ranks) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    ctrlc::set_handler(move || asked.store(true, Ordering::Relaxed))?;
    if let (Some(language_model), Some(tower)) = (&flags.language_model, &flags.tower) {
        return ranks.all_succeed(join_tower(language_model, tower, &flags.out));
    }
    match (&flags.language_model, &flags.pictures, &flags.config) {
        (Some(language_model), Some(pictures), _) => {
            let config = ranks.all_succeed(flags.picture_config())?;
            let run = PictureTarget {
                language_model: language_model.clone(),
                pictures: pictures.clone(),
                prepared: flags.out.clone(),
                config,
            };
            learn_to_see(flags, &run, ranks, &stop)
        }
        (_, _, Some(config)) => {
            let config =
                ranks.all_succeed(MakeTargetConfig::read(config).map_err(Failure::from))?;
            train::<SceneCourse>(flags, config, ranks, &stop)
        }
        _ => Err(Failure::usage("--config or --language-model is needed")),
    }
}

impl Flags {
    fn stages(&self) -> usize {
        self.stages.map_or(usize::MAX, usize::from)
    }

    fn picture_config(&self) -> Result<PictureConfig, Failure> {
        Ok(match &self.config {
            Some(path) => PictureConfig::read(path)?,
            None => PictureConfig::parse("the built-in config", PICTURES)?,
        })
    }
}

#[expect(clippy::print_stdout, reason = "output of the program")]
fn join_tower(language_model: &Path, tower: &Path, out: &Path) -> Result<(), Failure> {
    println!("{}", join(language_model, tower, out)?.display());
    Ok(())
}

/// Prepares the pictures, lets the language model write its answers, trains, and evaluates the
/// result.
#[expect(clippy::print_stderr, reason = "what a user sees")]
fn learn_to_see(
    flags: &Flags,
    run: &PictureTarget,
    ranks: &Ranks,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    let prepared = ranks.is_first().then(|| -> Result<IconIndex, Failure> {
        let mut bar: Option<CaptureProgress> = None;
        let index = prepare(run, |done, total| {
            let bar = bar.get_or_insert_with(|| CaptureProgress::new("icons", total, 0));
            bar.step(1, 0);
            if done == total {
                bar.finish();
            }
        })?;
        say_what_is_left(&index);
        write_word_answers(run, &index, flags.device, stop)?;
        Ok(index)
    });
    let index = ranks.all_succeed(prepared.transpose())?;
    train::<PictureCourse>(flags, run.clone(), ranks, stop)?;
    let Some(index) = index else {
        return Ok(());
    };
    for stage in run.config.stages.iter().take(flags.stages()) {
        if let Learn::Answers { .. } = stage.learn {
            for line in name_pictures(run, (&index, stage), (&flags.out, flags.device))? {
                eprintln!("{line}");
            }
        }
    }
    Ok(())
}

/// Prints one line per set, then the totals.
#[expect(clippy::print_stderr, reason = "what a user sees")]
fn say_what_is_left(index: &IconIndex) {
    for (name, left) in &index.sets {
        let broken = match left.broken.is_empty() {
            true => String::new(),
            false => format!(", broken: {}", left.broken.join(", ")),
        };
        eprintln!(
            "{name} ({}): {} pictures, {} icons without a name{broken}",
            left.license, left.pictures, left.unnamed
        );
    }
    eprintln!(
        "{} things, {} training pictures, {} held-out pictures",
        index.things.len(),
        index.taught.len(),
        index.held_out.len()
    );
}

/// Trains to the end, or until the user interrupts.
fn train<C>(
    flags: &Flags,
    config: C::Config,
    ranks: &Ranks,
    stop: &AtomicBool,
) -> Result<(), Failure>
where
    C: Course,
    C::Judgement: Say,
{
    let device = ranks.all_succeed(flags.device.open().map_err(Failure::from))?;
    let mut view = View(StepBar::default());
    let mut trainer =
        Trainer::<C>::open(config, &flags.out, &device, ranks.clone())?.until_stage(flags.stages());
    let ended = trainer.run(stop, &mut view)?;
    view.0.finish();
    match ended {
        Ended::Interrupted => Err(Interrupted::Training {
            step: trainer.steps(),
        }
        .into()),
        Ended::Finished => Ok(()),
    }
}

/// Progress on stderr.
struct View(StepBar);

impl<J: Say> TargetObserver<J> for View {
    fn started(&mut self, step: usize, n_steps: usize) {
        self.0.start(step, n_steps);
    }

    fn step(&mut self, record: &TargetStep) {
        self.0.step(record.step, format!("loss {:.3}", record.loss));
    }

    fn judged(&mut self, judgement: &J) {
        self.0.say(&judgement.line());
    }
}

/// Formats a judgement as one line.
trait Say {
    fn line(&self) -> String;
}

impl Say for Judgement {
    fn line(&self) -> String {
        format!(
            "stage {}, {} image tokens: held-out loss {:.3}, {:.1} % of tokens right, {:.1} % of answers",
            self.stage,
            self.image_tokens,
            self.loss,
            100.0 * self.right_tokens,
            100.0 * self.right_answers,
        )
    }
}

impl Say for PictureJudgement {
    fn line(&self) -> String {
        let sets = match self.seen {
            Seen::Taught => "training sets",
            Seen::HeldOut => "held-out sets",
        };
        let shares = [
            ("names", self.right_names),
            ("words", self.right_words),
            ("tokens", self.right_tokens),
        ];
        let shares = shares
            .into_iter()
            .filter_map(|(what, share)| Some(format!(", {:.1} % of {what} right", 100.0 * share?)));
        format!(
            "stage {}, {} pictures of {sets}: loss {:.3}{}",
            self.stage,
            self.pictures,
            self.loss,
            shares.collect::<String>(),
        )
    }
}
