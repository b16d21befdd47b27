//! The loop.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::config::{MakeTargetConfig, Stage};
use super::cross_entropy::{negative_mean, read, scalar};
use super::export::export;
use super::judge::{Judgement, judge};
use super::lessons::Teacher;
use super::start::TargetStart;
use crate::error::TrainError;
use crate::files;
use crate::gradients::Gradients;
use crate::network::{TargetNetwork, TargetShape, Trainable as _};
use crate::optimizer::Optimizer;
use crate::run::{Ended, Metrics, RunProgress, STATE_FILE, State, config_difference};

/// Name of the checkpoint's directory.
const CHECKPOINT: &str = "checkpoint";

/// A step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TargetStep {
    /// From 0.
    pub stage: usize,
    /// From 0, through all stages.
    pub step: usize,
    /// The learning rate.
    pub learning_rate: f64,
    /// Cross entropy of answer tokens, mean over lessons.
    pub loss: f64,
    /// Of the step.
    pub seconds: f64,
}

#[derive(Serialize)]
#[serde(tag = "record", rename_all = "snake_case")]
enum Record {
    Step(TargetStep),
    Judgement(Judgement),
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Progress {
    config: MakeTargetConfig,
    stage: usize,
    step_in_stage: usize,
    step: usize,
    /// The lesson that is next.
    lesson: u64,
    metrics_bytes: u64,
    updates: BTreeMap<String, usize>,
}

impl RunProgress for Progress {
    fn updates(&mut self) -> &mut BTreeMap<String, usize> {
        &mut self.updates
    }
}

/// Watches a run.
pub trait TargetObserver {
    /// A run starts, or goes on, at `step` of `n_steps`.
    fn started(&mut self, step: usize, n_steps: usize);
    /// A step is done.
    fn step(&mut self, record: &TargetStep);
    /// Scenes of a size were judged.
    fn judged(&mut self, judgement: &Judgement);
}

/// A target under training.
#[derive(Debug)]
pub struct TargetTrainer {
    out: PathBuf,
    teacher: Teacher,
    network: TargetNetwork,
    shape: TargetShape,
    optimizer: Optimizer,
    progress: Progress,
    metrics: Metrics,
}

/// Runs `work` with one thread for its parallel loops: the other threads have work of their own.
fn alone<R: Send>(work: impl FnOnce() -> Result<R, TrainError> + Send) -> Result<R, TrainError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    pool.map_err(TrainError::Thread)?.install(work)
}

/// What a worker found out.
struct Share {
    loss: f64,
    gradients: Gradients,
}

impl TargetTrainer {
    /// Starts a run in a directory, or goes on with the one that is there.
    ///
    /// # Errors
    /// [`TrainError::OtherRun`] if the run in the directory has another config; any error of
    /// reading the base, its data or a state.
    pub fn open(config: MakeTargetConfig, out: &Path, device: &Device) -> Result<Self, TrainError> {
        config.check()?;
        std::fs::create_dir_all(out).map_err(files::at(out))?;
        let teacher = Teacher::new(&config, device)?;
        let start = TargetStart::read(&config.base, &teacher.target().for_draft())?;
        let mut optimizer = Optimizer::new(&config.adamw);
        let (start, progress) = match State::<Progress>::read(out)? {
            None => (
                start.deepened(config.stages[0].layers),
                Progress {
                    config,
                    stage: 0,
                    step_in_stage: 0,
                    step: 0,
                    lesson: 0,
                    metrics_bytes: 0,
                    updates: BTreeMap::new(),
                },
            ),
            Some(state) => {
                if state.progress.config != config {
                    return Err(TrainError::OtherRun {
                        path: out.join(STATE_FILE),
                        difference: config_difference(&state.progress.config, &config),
                    });
                }
                optimizer.restore(&state.moments, device);
                let mut shape = start.shape;
                let stage = state.progress.stage.min(config.stages.len() - 1);
                shape.decoder.layers = config.stages[stage].layers.max(shape.decoder.layers);
                let parameters = state.parameters;
                (TargetStart { shape, parameters }, state.progress)
            }
        };
        Ok(Self {
            network: start
                .shape
                .build(&start.parameters, &device.clone().autodiff()),
            shape: start.shape,
            metrics: Metrics::open(out, progress.metrics_bytes)?,
            out: out.to_owned(),
            teacher,
            optimizer,
            progress,
        })
    }

    /// Trains until all stages are done or `stop` is set, which is looked at after each step. The
    /// checkpoint is written at the end of each stage.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] if the loss is not a number; any error of writing files. What was
    /// saved before stays.
    pub fn run(
        &mut self,
        stop: &AtomicBool,
        observer: &mut dyn TargetObserver,
    ) -> Result<Ended, TrainError> {
        let stages = self.progress.config.stages.clone();
        observer.started(
            self.progress.step,
            stages.iter().map(|stage| stage.steps).sum(),
        );
        while let Some(stage) = stages.get(self.progress.stage) {
            while self.progress.step_in_stage < stage.steps {
                let record = self.step(stage)?;
                observer.step(&record);
                self.metrics.write(&Record::Step(record))?;
                if stop.load(Ordering::Relaxed) {
                    self.save()?;
                    return Ok(Ended::Interrupted);
                }
                let every = self.progress.config.save_every;
                if self.progress.step.is_multiple_of(every) {
                    self.save()?;
                }
            }
            self.end_stage(&stages, observer)?;
        }
        Ok(Ended::Finished)
    }

    /// Directory of the checkpoint.
    #[must_use]
    pub fn checkpoint(&self) -> PathBuf {
        self.out.join(CHECKPOINT)
    }

    fn step(&mut self, stage: &Stage) -> Result<TargetStep, TrainError> {
        let started = Instant::now();
        let numbers: Vec<u64> = (self.progress.lesson..).take(stage.batch_size).collect();
        let workers = self.progress.config.workers.min(numbers.len());
        let (teacher, network, step) = (&self.teacher, &self.network, self.progress.step);
        let shares: Vec<Result<Share, TrainError>> = std::thread::scope(|scope| {
            let worker = |worker: usize| {
                let numbers = numbers.iter().copied().skip(worker).step_by(workers);
                let lessons = move || share(teacher, network, numbers, &stage.sides, step);
                scope.spawn(move || {
                    if workers > 1 {
                        alone(lessons)
                    } else {
                        lessons()
                    }
                })
            };
            let handles: Vec<_> = (0..workers).map(worker).collect();
            let joined = handles.into_iter().map(|handle| handle.join());
            joined
                .map(|share| share.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let (mut loss, mut gradients) = (0.0, Gradients::default());
        for share in shares {
            let share = share?;
            loss += share.loss;
            gradients.add(share.gradients);
        }
        #[expect(clippy::cast_precision_loss, reason = "few lessons")]
        let loss = loss / numbers.len() as f64;
        if let Some(name) = gradients.not_finite()? {
            return Err(TrainError::NotFinite {
                step,
                quantity: format!("the gradient of {name}"),
                samples: numbers.iter().map(u64::to_string).collect(),
            });
        }
        let learning_rate = stage.learning_rate_at(self.progress.step_in_stage);
        let gradients = gradients.divide(numbers.len());
        let clipped = gradients.clip(self.progress.config.clip_value);
        let network = self.network.clone();
        self.network = self.optimizer.step(network, clipped, learning_rate);
        self.progress.lesson += numbers.len() as u64;
        self.progress.step += 1;
        self.progress.step_in_stage += 1;
        Ok(TargetStep {
            stage: self.progress.stage,
            step,
            learning_rate,
            loss,
            seconds: started.elapsed().as_secs_f64(),
        })
    }

    /// Writes and judges what was made, and prepares the next stage.
    fn end_stage(
        &mut self,
        stages: &[Stage],
        observer: &mut dyn TargetObserver,
    ) -> Result<(), TrainError> {
        let parameters = self.network.parameters()?;
        export(
            &self.checkpoint(),
            &self.progress.config,
            &self.shape,
            &parameters,
        )?;
        for side in self.progress.config.sides() {
            let n_scenes = self.progress.config.held_out;
            let stage = self.progress.stage;
            let judgement = judge(&self.teacher, &self.network, (stage, side), n_scenes)?;
            observer.judged(&judgement);
            self.metrics.write(&Record::Judgement(judgement))?;
        }
        self.progress.stage += 1;
        self.progress.step_in_stage = 0;
        if let Some(next) = stages.get(self.progress.stage) {
            let start = TargetStart {
                shape: self.shape,
                parameters,
            };
            let start = start.deepened(next.layers);
            let device = self.teacher.target().device().clone().autodiff();
            self.network = start.shape.build(&start.parameters, &device);
            self.shape = start.shape;
            self.optimizer = Optimizer::new(&self.progress.config.adamw);
        }
        self.save()
    }

    fn save(&mut self) -> Result<(), TrainError> {
        self.progress.metrics_bytes = self.metrics.len();
        State::of(&self.progress, &self.network, &self.optimizer)?.write(&self.out)
    }
}

impl Stage {
    /// Linear warm-up, then linear decay to zero at the end.
    #[expect(clippy::cast_precision_loss, reason = "few steps")]
    fn learning_rate_at(&self, step: usize) -> f64 {
        let warm = (step + 1) as f64 / (self.warmup_steps + 1) as f64;
        let left = (self.steps - step) as f64
            / (self.steps - self.warmup_steps.min(self.steps - 1)) as f64;
        self.learning_rate * warm.min(left).min(1.0)
    }
}

/// Losses and gradients of some lessons, added up.
fn share(
    teacher: &Teacher,
    network: &TargetNetwork,
    numbers: impl Iterator<Item = u64>,
    sides: &[u32],
    step: usize,
) -> Result<Share, TrainError> {
    let network = network.clone().forked();
    let mut sum = Share {
        loss: 0.0,
        gradients: Gradients::default(),
    };
    for number in numbers {
        let lesson = teacher.lesson(number, sides)?;
        let loss = negative_mean(read(&network, &lesson), &lesson.next);
        let value = scalar(loss.clone());
        if !value.is_finite() {
            return Err(TrainError::NotFinite {
                step,
                quantity: "the loss".to_owned(),
                samples: vec![lesson.id],
            });
        }
        sum.loss += value;
        sum.gradients
            .add(Gradients::take(&network, loss.backward()));
    }
    Ok(sum)
}
