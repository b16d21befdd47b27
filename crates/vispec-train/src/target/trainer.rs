//! The training loop of targets.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::course::{Course, LessonLoss, Pace};
use super::cross_entropy::scalar;
use crate::error::TrainError;
use crate::files;
use crate::gradients::Gradients;
use crate::network::Trainable as _;
use crate::optimizer::Optimizer;
use crate::ranks::{GradientSum, GradientType, Ranks, RollCall};
use crate::run::{Ended, Metrics, RunProgress, STATE_FILE, State, config_difference, weights_hash};

/// Metrics of a step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TargetStep {
    /// Number of the stage, from 0.
    pub stage: usize,
    /// Number of the step from 0, counted through all stages.
    pub step: usize,
    /// The learning rate.
    pub learning_rate: f64,
    /// The loss (cross entropy), as the mean over lessons.
    pub loss: f64,
    /// Duration of the step.
    pub seconds: f64,
}

#[derive(Serialize)]
#[serde(tag = "record", rename_all = "snake_case")]
enum Record<J> {
    Step(TargetStep),
    Judgement(J),
}

/// The progress of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Progress<C> {
    config: C,
    /// [`Course::identity`] of the lessons.
    sources: String,
    stage: usize,
    step_in_stage: usize,
    step: usize,
    /// Number of the next lesson.
    lesson: u64,
    metrics_bytes: u64,
    updates: BTreeMap<String, usize>,
}

impl<C: Serialize + serde::de::DeserializeOwned> RunProgress for Progress<C> {
    fn updates(&mut self) -> &mut BTreeMap<String, usize> {
        &mut self.updates
    }
}

/// Observes the progress of a run. With several ranks, only the first one's observer is called.
pub trait TargetObserver<J> {
    /// Called when a run starts or resumes at `step` of `n_steps`.
    fn started(&mut self, step: usize, n_steps: usize);
    /// Called after each step.
    fn step(&mut self, record: &TargetStep);
    /// Called with each result of the evaluation at the end of a stage.
    fn judged(&mut self, judgement: &J);
}

/// The observer of all ranks but the first: does nothing.
struct Unobserved;

impl<J> TargetObserver<J> for Unobserved {
    fn started(&mut self, _step: usize, _n_steps: usize) {}

    fn step(&mut self, _record: &TargetStep) {}

    fn judged(&mut self, _judgement: &J) {}
}

/// The training of a target.
pub struct Trainer<C: Course> {
    out: PathBuf,
    course: C,
    network: C::Network,
    optimizer: Optimizer,
    progress: Progress<C::Config>,
    paces: Vec<Pace>,
    /// Number of stages after which the run ends.
    last: usize,
    ranks: Ranks,
    /// The metrics file, on the first rank only.
    metrics: Option<Metrics>,
}

impl<C: Course> fmt::Debug for Trainer<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trainer")
            .field("out", &self.out)
            .field("course", &self.course)
            .field("step", &self.progress.step)
            .finish_non_exhaustive()
    }
}

/// Runs `work` with a single thread for its parallel loops, because other workers use the others.
fn alone<R: Send>(work: impl FnOnce() -> Result<R, TrainError> + Send) -> Result<R, TrainError> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    pool.map_err(TrainError::Thread)?.install(work)
}

/// The sums of one worker's losses and gradients.
struct Share {
    loss: f64,
    gradients: Gradients,
}

impl<C: Course> Trainer<C> {
    /// Starts a run in a directory, or resumes the run that is there. All ranks need access to the
    /// directory. Only the first rank writes, and not before all ranks are ready.
    ///
    /// # Errors
    /// * [`TrainError::OtherRun`] if the run in the directory has another config or other sources of
    ///   lessons.
    /// * [`TrainError::Setting`] if there are fewer workers than ranks.
    /// * Any error of reading the base, its data or a state.
    ///
    /// With several ranks, all of these become [`TrainError::Ranks`]. It is also returned if ranks
    /// differ in anything that determines the outcome.
    pub fn open(
        config: C::Config,
        out: &Path,
        device: &Device,
        ranks: Ranks,
    ) -> Result<Self, TrainError> {
        let opened = Self::prepare(config, out, device, &ranks);
        let mut trainer = ranks.all_succeed(opened)?;
        let Progress {
            config,
            sources,
            step,
            ..
        } = &trainer.progress;
        RollCall::call(&ranks, || {
            let moments = trainer.optimizer.moments()?;
            let hash = weights_hash(&trainer.network.parameters()?, &moments);
            Ok(RollCall::new(config, sources.clone(), *step, hash))
        })?;
        trainer.metrics = ranks.on_first(|| {
            std::fs::create_dir_all(out).map_err(files::at(out))?;
            Metrics::open(out, trainer.progress.metrics_bytes)
        })?;
        Ok(trainer)
    }

    /// Reads everything that this rank needs.
    fn prepare(
        config: C::Config,
        out: &Path,
        device: &Device,
        ranks: &Ranks,
    ) -> Result<Self, TrainError> {
        let course = C::open(&config, device)?;
        let settings = C::settings(&config);
        if settings.workers < ranks.count() {
            let expected = format!("at least {}, a worker for each rank", ranks.count());
            return Err(TrainError::Setting {
                field: "workers",
                found: settings.workers.to_string(),
                expected,
            });
        }
        let paces = C::paces(&config);
        let sources = course.identity()?;
        let mut optimizer = Optimizer::new(&settings.adamw);
        let (parameters, progress) = match State::<Progress<C::Config>>::read(out)? {
            None => (
                course.enter(0, None)?,
                Progress {
                    config,
                    sources,
                    stage: 0,
                    step_in_stage: 0,
                    step: 0,
                    lesson: 0,
                    metrics_bytes: 0,
                    updates: BTreeMap::new(),
                },
            ),
            Some(mut state) => {
                let saved = &state.progress;
                let difference = config_difference(&saved.config, &config).or_else(|| {
                    let before = &saved.sources;
                    let differs = *before != sources;
                    differs.then(|| {
                        format!("the sources of the lessons had the hash {before}, now {sources}")
                    })
                });
                if let Some(difference) = difference {
                    return Err(TrainError::OtherRun {
                        path: out.join(STATE_FILE),
                        difference,
                    });
                }
                optimizer.restore(&state.moments, device);
                // The saved config has no paths.
                state.progress.config = config;
                (state.parameters, state.progress)
            }
        };
        Ok(Self {
            network: course.build(progress.stage.min(paces.len() - 1), &parameters),
            course,
            metrics: None,
            ranks: ranks.clone(),
            out: out.to_owned(),
            optimizer,
            progress,
            last: paces.len(),
            paces,
        })
    }

    /// Ends the run after `n_stages` stages; later stages are left for another run.
    #[must_use]
    pub fn until_stage(mut self, n_stages: usize) -> Self {
        self.last = n_stages.min(self.paces.len());
        self
    }

    /// Trains until all stages are done or `stop` is set; `stop` is checked after each step. The
    /// checkpoint is written at the end of each stage.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] if the loss or a gradient is not finite, any error of making
    /// lessons, and any error of writing files. Files that were saved before remain.
    pub fn run(
        &mut self,
        stop: &AtomicBool,
        observer: &mut dyn TargetObserver<C::Judgement>,
    ) -> Result<Ended, TrainError> {
        let mut unobserved = Unobserved;
        let observer: &mut dyn TargetObserver<C::Judgement> = if self.ranks.is_first() {
            observer
        } else {
            &mut unobserved
        };
        let paces = self.paces[..self.last].to_vec();
        let steps = paces.iter().map(|pace| pace.steps).sum();
        observer.started(self.progress.step, steps);
        while let Some(&pace) = paces.get(self.progress.stage) {
            while self.progress.step_in_stage < pace.steps {
                let record = self.step(pace)?;
                observer.step(&record);
                let written = self.write(&Record::Step(record));
                self.ranks.all_succeed(written)?;
                if self.ranks.any(stop.load(Ordering::Relaxed))? {
                    self.save()?;
                    return Ok(Ended::Interrupted);
                }
                let every = C::settings(&self.progress.config).save_every;
                if self.progress.step.is_multiple_of(every) {
                    self.save()?;
                }
            }
            self.end_stage(observer)?;
        }
        Ok(Ended::Finished)
    }

    /// Returns the number of steps done in all stages.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.progress.step
    }

    fn step(&mut self, pace: Pace) -> Result<TargetStep, TrainError> {
        let started = Instant::now();
        let numbers: Vec<u64> = (self.progress.lesson..).take(pace.batch_size).collect();
        let settings = C::settings(&self.progress.config);
        let workers = settings.workers.min(numbers.len());
        let own = self.shares(&numbers, workers);
        let (losses, gradients) = self.ranks.all_succeed(own)?;
        let losses = self.ranks.gather(losses)?.concat();
        #[expect(clippy::cast_precision_loss, reason = "few lessons")]
        let loss = losses.iter().sum::<f64>() / numbers.len() as f64;
        let gradients = gradients.finish(self.course.device())?;
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
        let learning_rate = pace.learning_rate_at(self.progress.step_in_stage);
        let gradients = gradients.divide(numbers.len());
        let clipped = gradients.clip(settings.clip_value);
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

    /// Computes the losses and gradients of this rank's share of the workers.
    fn shares(
        &self,
        numbers: &[u64],
        workers: usize,
    ) -> Result<(Vec<f64>, GradientSum), TrainError> {
        let (course, network) = (&self.course, &self.network);
        let (stage, step) = (self.progress.stage, self.progress.step);
        let own = self.ranks.share(workers);
        let side_by_side = own.len() > 1;
        let shares: Vec<Result<Share, TrainError>> = std::thread::scope(|scope| {
            let worker = |worker: usize| {
                let numbers = numbers.iter().copied().skip(worker).step_by(workers);
                let lessons = move || share(course, network, numbers, (stage, step));
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

    /// Writes and evaluates the results of a stage, and prepares the next one.
    fn end_stage(
        &mut self,
        observer: &mut dyn TargetObserver<C::Judgement>,
    ) -> Result<(), TrainError> {
        let ranks = self.ranks.clone();
        let parameters = ranks.all_succeed(self.network.parameters())?;
        ranks.on_first(|| {
            let frozen = self.network.clone().frozen();
            let ended = (&frozen, &parameters);
            let judged = self.course.close(self.progress.stage, ended, &self.out)?;
            for judgement in judged {
                observer.judged(&judgement);
                self.write(&Record::Judgement(judgement))?;
            }
            Ok(())
        })?;
        self.progress.stage += 1;
        self.progress.step_in_stage = 0;
        if self.progress.stage < self.paces.len() {
            let entered = self.course.enter(self.progress.stage, Some(parameters));
            let entered = ranks.all_succeed(entered)?;
            self.network = self.course.build(self.progress.stage, &entered);
            self.optimizer = Optimizer::new(&C::settings(&self.progress.config).adamw);
        }
        self.save()
    }

    /// Writes a line of the metrics on the first rank; does nothing on the others.
    fn write(&mut self, record: &Record<C::Judgement>) -> Result<(), TrainError> {
        match &mut self.metrics {
            Some(metrics) => metrics.write(record),
            None => Ok(()),
        }
    }

    /// Saves the state, after checking that all ranks have the same one.
    fn save(&mut self) -> Result<(), TrainError> {
        self.progress.metrics_bytes = self.metrics.as_ref().map_or(0, Metrics::len);
        let state = State::of(&self.progress, &self.network, &self.optimizer);
        let state = self.ranks.all_succeed(state)?;
        state.require_equal(&self.ranks, self.progress.step)?;
        self.ranks.on_first(|| state.write(&self.out))?;
        Ok(())
    }
}

/// Returns the sums of the losses and gradients of some lessons.
fn share<C: Course>(
    course: &C,
    network: &C::Network,
    numbers: impl Iterator<Item = u64>,
    (stage, step): (usize, usize),
) -> Result<Share, TrainError> {
    let network = network.clone().forked();
    let mut sum = Share {
        loss: 0.0,
        gradients: Gradients::default(),
    };
    for number in numbers {
        let LessonLoss { id, loss } = course.loss(&network, stage, number)?;
        let value = scalar(loss.clone());
        if !value.is_finite() {
            return Err(TrainError::NotFinite {
                step,
                quantity: "the loss".to_owned(),
                samples: vec![id],
            });
        }
        sum.loss += value;
        sum.gradients
            .add(Gradients::take(&network, loss.backward()));
    }
    Ok(sum)
}
