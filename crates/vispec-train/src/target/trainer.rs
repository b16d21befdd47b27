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
use crate::network::{Parameters, TargetNetwork, TargetShape, Trainable as _};
use crate::optimizer::Optimizer;
use crate::ranks::{GradientSum, GradientType, Ranks, RollCall};
use crate::run::{Ended, Metrics, RunProgress, STATE_FILE, State, config_difference, weights_hash};

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

/// Watches a run; of several ranks, the first one's.
pub trait TargetObserver {
    /// A run starts, or goes on, at `step` of `n_steps`.
    fn started(&mut self, step: usize, n_steps: usize);
    /// A step is done.
    fn step(&mut self, record: &TargetStep);
    /// Scenes of a size were judged.
    fn judged(&mut self, judgement: &Judgement);
}

/// The ranks that no one watches.
struct Unobserved;

impl TargetObserver for Unobserved {
    fn started(&mut self, _step: usize, _n_steps: usize) {}

    fn step(&mut self, _record: &TargetStep) {}

    fn judged(&mut self, _judgement: &Judgement) {}
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
    ranks: Ranks,
    /// The first rank's.
    metrics: Option<Metrics>,
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
    /// Starts a run in a directory, or goes on with the one that is there. All ranks have to see the
    /// directory; the first one writes, and not before all are ready.
    ///
    /// # Errors
    /// [`TrainError::OtherRun`] if the run in the directory has another config,
    /// [`TrainError::Setting`] if there are fewer workers than ranks; any error of reading the base,
    /// its data or a state; with several ranks all as [`TrainError::Ranks`], and this also if they
    /// differ in what decides the outcome.
    pub fn open(
        config: MakeTargetConfig,
        out: &Path,
        device: &Device,
        ranks: Ranks,
    ) -> Result<Self, TrainError> {
        let opened = Self::prepare(config, out, device, &ranks);
        let mut trainer = ranks.all_succeed(opened)?;
        let Progress { config, step, .. } = &trainer.progress;
        RollCall::call(&ranks, || {
            let moments = trainer.optimizer.moments()?;
            let hash = weights_hash(&trainer.network.parameters()?, &moments);
            Ok(RollCall::new(
                config,
                trainer.teacher.identity()?,
                *step,
                hash,
            ))
        })?;
        trainer.metrics = ranks.on_first(|| {
            std::fs::create_dir_all(out).map_err(files::at(out))?;
            Metrics::open(out, trainer.progress.metrics_bytes)
        })?;
        Ok(trainer)
    }

    /// Reads all that this rank needs.
    fn prepare(
        config: MakeTargetConfig,
        out: &Path,
        device: &Device,
        ranks: &Ranks,
    ) -> Result<Self, TrainError> {
        config.check()?;
        config.check_ranks(ranks.count())?;
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
            metrics: None,
            ranks: ranks.clone(),
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
        let mut unobserved = Unobserved;
        let observer: &mut dyn TargetObserver = if self.ranks.is_first() {
            observer
        } else {
            &mut unobserved
        };
        let stages = self.progress.config.stages.clone();
        observer.started(
            self.progress.step,
            stages.iter().map(|stage| stage.steps).sum(),
        );
        while let Some(stage) = stages.get(self.progress.stage) {
            while self.progress.step_in_stage < stage.steps {
                let record = self.step(stage)?;
                observer.step(&record);
                let written = self.write(&Record::Step(record));
                self.ranks.all_succeed(written)?;
                if self.ranks.any(stop.load(Ordering::Relaxed))? {
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

    /// Steps done in all.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.progress.step
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
        let own = self.shares(&numbers, workers, &stage.sides);
        let (losses, gradients) = self.ranks.all_succeed(own)?;
        let losses = self.ranks.gather(losses)?.concat();
        #[expect(clippy::cast_precision_loss, reason = "few lessons")]
        let loss = losses.iter().sum::<f64>() / numbers.len() as f64;
        let gradients = gradients.finish(self.teacher.target().device())?;
        let step = self.progress.step;
        let finite = gradients.not_finite().and_then(|name| match name {
            Some(name) => Err(TrainError::NotFinite {
                step,
                quantity: format!("the gradient of {name}"),
                samples: numbers.iter().map(u64::to_string).collect(),
            }),
            None => Ok(()),
        });
        self.ranks.all_succeed(finite)?;
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

    /// Losses and gradients of the lessons of those workers that are this rank's.
    fn shares(
        &self,
        numbers: &[u64],
        workers: usize,
        sides: &[u32],
    ) -> Result<(Vec<f64>, GradientSum), TrainError> {
        let (teacher, network, step) = (&self.teacher, &self.network, self.progress.step);
        let own = self.ranks.share(workers);
        let side_by_side = own.len() > 1;
        let shares: Vec<Result<Share, TrainError>> = std::thread::scope(|scope| {
            let worker = |worker: usize| {
                let numbers = numbers.iter().copied().skip(worker).step_by(workers);
                let lessons = move || share(teacher, network, numbers, sides, step);
                scope.spawn(move || {
                    if side_by_side {
                        alone(lessons)
                    } else {
                        lessons()
                    }
                })
            };
            let handles: Vec<_> = own.map(worker).collect();
            let joined = handles.into_iter().map(|handle| handle.join());
            joined
                .map(|share| share.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        let mut losses = Vec::with_capacity(shares.len());
        let mut gradients = GradientSum::new(&self.ranks, GradientType::F32);
        for share in shares {
            let share = share?;
            losses.push(share.loss);
            gradients.add(share.gradients)?;
        }
        Ok((losses, gradients))
    }

    /// Writes and judges what was made, and prepares the next stage.
    fn end_stage(
        &mut self,
        stages: &[Stage],
        observer: &mut dyn TargetObserver,
    ) -> Result<(), TrainError> {
        let ranks = self.ranks.clone();
        let parameters = ranks.all_succeed(self.network.parameters())?;
        ranks.on_first(|| self.judge(&parameters, observer))?;
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

    /// Writes and judges what was made.
    fn judge(
        &mut self,
        parameters: &Parameters,
        observer: &mut dyn TargetObserver,
    ) -> Result<(), TrainError> {
        let config = &self.progress.config;
        export(&self.checkpoint(), config, &self.shape, parameters)?;
        for side in config.sides() {
            let n_scenes = self.progress.config.held_out;
            let stage = self.progress.stage;
            let judgement = judge(&self.teacher, &self.network, (stage, side), n_scenes)?;
            observer.judged(&judgement);
            self.write(&Record::Judgement(judgement))?;
        }
        Ok(())
    }

    /// Writes a line of the metrics, which the first rank keeps.
    fn write(&mut self, record: &Record) -> Result<(), TrainError> {
        match &mut self.metrics {
            Some(metrics) => metrics.write(record),
            None => Ok(()),
        }
    }

    /// Saves the state, after a look whether all ranks have the same.
    fn save(&mut self) -> Result<(), TrainError> {
        self.progress.metrics_bytes = self.metrics.as_ref().map_or(0, Metrics::len);
        let state = State::of(&self.progress, &self.network, &self.optimizer);
        let state = self.ranks.all_succeed(state)?;
        state.require_equal(&self.ranks, self.progress.step)?;
        self.ranks.on_first(|| state.write(&self.out))?;
        Ok(())
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
