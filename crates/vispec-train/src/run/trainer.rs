//! The loop.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::tensor::Tensor;
use vispec_data::capture::SampleSource;
use vispec_models::TargetText;

use super::held_out::{HeldOut, Judge, LossSums};
use super::metrics::{EpochRecord, Metrics, MetricsRecord, StepRecord};
use super::samples::{Drawn, Part, Samples, order, split};
use super::state::{Best, Progress, State};
use crate::config::{HeadType, TrainConfig};
use crate::data::{DraftVocabulary, Features, Noise, PrepareOptions, PreparedSample};
use crate::error::TrainError;
use crate::export::Export;
use crate::files;
use crate::gradients::Gradients;
use crate::init::{QUANTIZED_HEAD, Start};
use crate::loss::Head;
use crate::network::{DraftShape, Network, NetworkKind, Parameters, Trainable as _, indices};
use crate::optimizer::Optimizer;
use crate::step::Losses;

/// Files of a run.
#[derive(Debug, Clone)]
pub struct RunPaths {
    /// Directory of the run: metrics, state, and the drafts in `last` and `best`.
    pub out: PathBuf,
}

/// Watches a run.
pub trait Observer {
    /// A run starts, or goes on, at `step` of `n_steps`.
    fn started(&mut self, step: usize, n_steps: usize);
    /// A step is done.
    fn step(&mut self, record: &StepRecord);
    /// This many held-out samples of this many were judged.
    fn judging(&mut self, done: usize, of: usize);
    /// An epoch is done.
    fn epoch(&mut self, record: &EpochRecord);
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All epochs are done.
    Finished,
    /// It was asked to stop. The state is saved.
    Interrupted,
}

/// A draft under training.
#[derive(Debug)]
pub struct Trainer<'t, S> {
    target: &'t TargetText,
    head: Head,
    source: &'t S,
    paths: RunPaths,
    shape: DraftShape,
    vocabulary: Option<Arc<DraftVocabulary>>,
    network: Network,
    optimizer: Optimizer,
    progress: Progress,
    metrics: Metrics,
}

impl<'t, S: SampleSource> Trainer<'t, S> {
    /// Starts a run in a directory, or goes on with the one that is there.
    ///
    /// # Arguments
    /// * `start` - gives shapes and first weights for the tokens that the draft is to choose among;
    ///   if there is a state to go on from, the weights are those of the state.
    ///
    /// # Errors
    /// [`TrainError::OtherRun`] if the run in the directory has another config or other data,
    /// [`TrainError::TargetMismatch`] if the head is quantised, any error of reading a state.
    pub fn open(
        config: TrainConfig,
        target: &'t TargetText,
        source: &'t S,
        paths: RunPaths,
        start: impl FnOnce(Option<&DraftVocabulary>) -> Result<Start, TrainError>,
    ) -> Result<Self, TrainError> {
        config.check()?;
        let [trained, _] = split(source.len(), config.data.held_out)?;
        std::fs::create_dir_all(&paths.out).map_err(files::at(&paths.out))?;
        let weight = target.head_weight().ok_or(QUANTIZED_HEAD)?;
        let vocabulary = config.vocabulary.map(|settings| {
            DraftVocabulary::of_answers(source, trained, settings.size, weight.dims()[0])
        });
        let vocabulary = vocabulary.transpose()?.map(Arc::new);
        let head = Head::new(match &vocabulary {
            None => weight,
            Some(list) => rows(&weight, &list.ascending()),
        });
        let head = match config.compute.head {
            HeadType::F32 => head,
            HeadType::Bf16 => head.in_bf16()?,
        };
        let device = head.device().autodiff();
        let Start {
            shape, parameters, ..
        } = start(vocabulary.as_deref())?;
        let mut optimizer = Optimizer::new(&config.optimizer.adamw);
        let (parameters, progress) = match State::read(&paths.out)? {
            Some(state) => {
                state.check(&paths.out, &config, &source.identity(), &shape)?;
                optimizer.restore(&state.moments, &head.device());
                (state.parameters, state.progress)
            }
            None => (parameters, Progress::new(config, source.identity())),
        };
        let metrics = Metrics::open(&paths.out, progress.metrics_bytes)?;
        Ok(Self {
            network: shape.build(&parameters, &device),
            target,
            head,
            source,
            paths,
            shape,
            vocabulary,
            optimizer,
            progress,
            metrics,
        })
    }

    /// Where the run stands.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The network.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Trains until all epochs are done or `stop` is set, which is looked at after each step.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] if the loss is not a number; any error of reading samples and of
    /// writing files. What was saved before stays.
    pub fn run(
        &mut self,
        stop: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<Ended, TrainError> {
        let n_steps = self.steps_per_epoch()? * self.progress.config.optimizer.epochs;
        observer.started(self.progress.step, n_steps);
        while self.progress.epoch < self.progress.config.optimizer.epochs {
            if self.run_epoch(stop, observer)? == Ended::Interrupted {
                self.save()?;
                return Ok(Ended::Interrupted);
            }
        }
        Ok(Ended::Finished)
    }

    fn part(&self, number: usize) -> Result<Part<'t, S>, TrainError> {
        let config = &self.progress.config;
        let parts = split(self.source.len(), config.data.held_out)?;
        Ok(Part {
            source: self.source,
            range: parts[number].clone(),
            options: PrepareOptions {
                max_len: config.data.max_len,
                loss_mask: config.objective.loss_mask(),
                features: match self.shape.kind {
                    NetworkKind::Eagle3 { states, .. } => Features::ResidualStates(states.len()),
                    _ => Features::HiddenState,
                },
                vocabulary: self.vocabulary.clone(),
                noise: None,
                reads_image_states: self.shape.n_queries() == 0,
                hidden: self.shape.decoder.hidden,
            },
        })
    }

    fn samples_per_step(&self) -> usize {
        let data = &self.progress.config.data;
        data.batch_size * data.accumulate
    }

    fn steps_per_epoch(&self) -> Result<usize, TrainError> {
        Ok(self.part(0)?.len().div_ceil(self.samples_per_step()))
    }

    fn run_epoch(
        &mut self,
        stop: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<Ended, TrainError> {
        let part = self.part(0)?;
        let (seed, epoch) = (self.progress.config.seed, self.progress.epoch);
        let order = order(seed, epoch, part.len());
        let steps: Vec<&[usize]> = order.chunks(self.samples_per_step()).collect();
        while self.progress.step_in_epoch < steps.len() {
            let record = self.step(&part, steps[self.progress.step_in_epoch], steps.len())?;
            observer.step(&record);
            self.metrics.write(&MetricsRecord::Step(record))?;
            let every = self.progress.config.checkpoint.every_steps;
            let last = self.progress.step_in_epoch == steps.len();
            if !last && stop.load(Ordering::Relaxed) {
                return Ok(Ended::Interrupted);
            }
            if !last && self.progress.step.is_multiple_of(every) {
                self.save()?;
            }
        }
        self.end_epoch(observer)?;
        let finished = self.progress.epoch == self.progress.config.optimizer.epochs;
        if stop.load(Ordering::Relaxed) && !finished {
            return Ok(Ended::Interrupted);
        }
        Ok(Ended::Finished)
    }

    fn step(
        &mut self,
        part: &Part<'_, S>,
        indices: &[usize],
        steps_per_epoch: usize,
    ) -> Result<StepRecord, TrainError> {
        let started = Instant::now();
        let config = self.progress.config.clone();
        let step = self.progress.step;
        let mut sums = LossSums::default();
        let mut gradients = Gradients::default();
        for batch in indices.chunks(config.data.batch_size) {
            let samples = self.draw(part, batch)?;
            if samples.is_empty() {
                continue;
            }
            let (losses, batch_gradients) =
                self.network
                    .backward(&samples, &config.objective, &self.head)?;
            require_finite(&losses, &batch_gradients, step, &samples)?;
            sums.add(&losses);
            gradients.add(batch_gradients);
        }
        let learning_rate = config.schedule().at(step, steps_per_epoch);
        let losses = sums.mean();
        if let Some(losses) = &losses {
            let gradients = gradients.divide(sums.batches);
            let clipped = gradients.clip(config.optimizer.clip_value);
            let network = self.network.clone();
            self.network = self.optimizer.step(network, clipped, learning_rate);
            self.progress.losses.add(losses);
        }
        self.progress.step += 1;
        self.progress.step_in_epoch += 1;
        #[expect(clippy::cast_precision_loss, reason = "few tokens")]
        let tokens = losses.map_or(0.0, |losses| losses.tokens as f64);
        Ok(StepRecord {
            epoch: self.progress.epoch,
            step,
            learning_rate,
            losses,
            tokens_per_second: tokens / started.elapsed().as_secs_f64().max(1e-9),
        })
    }

    /// The samples of a batch that can be trained on; the others are noted.
    fn draw(
        &mut self,
        part: &Part<'_, S>,
        indices: &[usize],
    ) -> Result<Vec<PreparedSample>, TrainError> {
        let noise = Noise {
            width: self.progress.config.data.noise_width,
            seed: self.progress.config.seed,
            epoch: self.progress.epoch as u64,
        };
        let mut samples = Vec::with_capacity(indices.len());
        for &index in indices {
            match part.draw(index, Some(noise))? {
                Drawn::Sample(sample) => samples.push(*sample),
                Drawn::Refused { id, refusal } => {
                    self.progress.refused.insert(id, refusal);
                }
            }
        }
        Ok(samples)
    }

    /// Judges and exports the draft, writes the record of the epoch and saves the state.
    fn end_epoch(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let epoch = self.progress.epoch;
        let train = self.progress.losses.mean();
        let refused = std::mem::take(&mut self.progress.refused);
        if let (None, Some((id, why))) = (&train, refused.iter().next()) {
            return Err(TrainError::AllRefused {
                epoch,
                refused: refused.len(),
                first: format!("{id}, {why}"),
            });
        }
        let last = self.paths.out.join("last");
        let parameters = self.network.parameters()?;
        self.export(&parameters).write(&last)?;
        let held_out = self.judge(&last, observer)?;
        let tree_tau = held_out.as_ref().and_then(|held_out| held_out.tree_tau);
        let best = match (tree_tau, self.progress.best) {
            (Some(tau), Some(best)) => tau > best.tree_tau,
            // Without a judgement the last draft is the best there is.
            (None, Some(_)) => false,
            (_, None) => true,
        };
        if best {
            let dir = self.paths.out.join("best");
            self.export(&parameters).write(&dir)?;
        }
        if let (true, Some(tree_tau)) = (best, tree_tau) {
            self.progress.best = Some(Best { epoch, tree_tau });
        }
        let record = EpochRecord {
            epoch,
            step: self.progress.step,
            train,
            refused,
            held_out,
            best,
        };
        observer.epoch(&record);
        self.metrics
            .write(&MetricsRecord::Epoch(Box::new(record)))?;
        self.progress.epoch += 1;
        self.progress.step_in_epoch = 0;
        self.progress.losses = LossSums::default();
        self.save()
    }

    fn export<'a>(&'a self, parameters: &'a Parameters) -> Export<'a> {
        Export {
            shape: &self.shape,
            parameters,
            target: self.target,
            vocabulary: self.vocabulary.as_deref(),
        }
    }

    fn judge(
        &self,
        dir: &Path,
        observer: &mut dyn Observer,
    ) -> Result<Option<HeldOut>, TrainError> {
        let part = self.part(1)?;
        if part.len() == 0 {
            return Ok(None);
        }
        let judge = Judge {
            config: &self.progress.config,
            target: self.target,
            head: &self.head,
            features: part.options.features,
        };
        let mut progress = |done, of| observer.judging(done, of);
        let held_out = judge.judge(&self.network, dir, &part, &mut progress)?;
        Ok(Some(held_out))
    }

    fn save(&mut self) -> Result<(), TrainError> {
        self.progress.metrics_bytes = self.metrics.len();
        State::of(&self.progress, &self.network, &self.optimizer)?.write(&self.paths.out)
    }
}

/// Rows of a head's weight `[vocab, hidden]`.
fn rows(weight: &Tensor<2>, tokens: &[u32]) -> Tensor<2> {
    let tokens: Vec<usize> = tokens.iter().map(|&token| token as usize).collect();
    weight.clone().select(0, indices(&tokens, &weight.device()))
}

fn require_finite(
    losses: &Losses,
    gradients: &Gradients,
    step: usize,
    samples: &[PreparedSample],
) -> Result<(), TrainError> {
    let quantity = match (losses.loss.is_finite(), gradients.not_finite()?) {
        (false, _) => "the loss".to_owned(),
        (true, Some(name)) => format!("the gradient of {name}"),
        (true, None) => return Ok(()),
    };
    Err(TrainError::NotFinite {
        step,
        quantity,
        samples: samples.iter().map(|sample| sample.id.clone()).collect(),
    })
}
