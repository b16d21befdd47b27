//! The training loop of drafts.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use burn::tensor::Tensor;
use vispec_data::capture::SampleSource;
use vispec_models::TargetText;

use super::held_out::{HeldOut, Judge, LossSums};
use super::metrics::{EpochRecord, Metrics, MetricsRecord, StepRecord};
use super::observer::{Ended, Observer, RunPaths, Unobserved};
use super::samples::{Part, Samples as _, order, split};
use super::share::Step;
use super::state::{Best, Progress, State, weights_hash};
use crate::config::{HeadType, TrainConfig};
use crate::data::{DraftVocabulary, Features, PrepareOptions};
use crate::error::TrainError;
use crate::export::Export;
use crate::files;
use crate::init::Start;
use crate::loss::Head;
use crate::network::{DraftShape, Network, NetworkKind, Parameters, Trainable as _, indices};
use crate::optimizer::Optimizer;
use crate::ranks::{Ranks, RollCall};

/// The training of a draft.
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
    ranks: Ranks,
    /// The metrics file, on the first rank only.
    metrics: Option<Metrics>,
}

impl<'t, S: SampleSource> Trainer<'t, S> {
    /// Starts a run in a directory, or resumes the run that is there. All ranks need access to the
    /// directory. Only the first rank writes, and not before all ranks are ready.
    ///
    /// # Arguments
    /// * `ranks` - processes that take each step together; their number does not change the
    ///   outcome.
    /// * `start` - returns the shape and the initial weights for the draft vocabulary. The weights
    ///   are replaced by those of a saved state, if there is one.
    ///
    /// # Errors
    /// * [`TrainError::OtherRun`] if the run in the directory has another config or other data.
    /// * [`TrainError::QuantizedHead`] if the head is quantised.
    /// * [`TrainError::Setting`] if a step has fewer batches than there are ranks.
    /// * Any error of reading a state.
    ///
    /// With several ranks, all of these become [`TrainError::Ranks`]. It is also returned if ranks
    /// differ in anything that determines the outcome.
    pub fn open(
        config: TrainConfig,
        target: &'t TargetText,
        source: &'t S,
        paths: RunPaths,
        ranks: Ranks,
        start: impl FnOnce(Option<&DraftVocabulary>) -> Result<Start, TrainError>,
    ) -> Result<Self, TrainError> {
        let opened = Self::prepare(config, (target, source), paths, &ranks, start);
        let mut trainer = ranks.all_succeed(opened)?;
        let Progress {
            config, data, step, ..
        } = &trainer.progress;
        RollCall::call(&ranks, || {
            let moments = trainer.optimizer.moments()?;
            let hash = weights_hash(&trainer.network.parameters()?, &moments);
            Ok(RollCall::new(config, data.clone(), *step, hash))
        })?;
        trainer.metrics = ranks.on_first(|| {
            let out = &trainer.paths.out;
            std::fs::create_dir_all(out).map_err(files::at(out))?;
            Metrics::open(out, trainer.progress.metrics_bytes)
        })?;
        Ok(trainer)
    }

    /// Reads everything that this rank needs.
    fn prepare(
        config: TrainConfig,
        (target, source): (&'t TargetText, &'t S),
        paths: RunPaths,
        ranks: &Ranks,
        start: impl FnOnce(Option<&DraftVocabulary>) -> Result<Start, TrainError>,
    ) -> Result<Self, TrainError> {
        config.check()?;
        config.check_ranks(ranks.count())?;
        let [trained, _] = split(source.len(), config.data.held_out)?;
        let weight = target.head_weight().ok_or(TrainError::QuantizedHead)?;
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
            ranks: ranks.clone(),
            metrics: None,
        })
    }

    /// Returns the number of steps done.
    #[must_use]
    pub fn steps_done(&self) -> usize {
        self.progress.step
    }

    /// Returns the network.
    #[must_use]
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Trains until all epochs are done or `stop` is set; `stop` is checked after each step.
    ///
    /// # Errors
    /// [`TrainError::NotFinite`] if the loss or a gradient is not finite, and any error of reading
    /// samples and of writing files. Files that were saved before remain.
    pub fn run(
        &mut self,
        stop: &AtomicBool,
        observer: &mut dyn Observer,
    ) -> Result<Ended, TrainError> {
        let mut unobserved = Unobserved;
        let observer: &mut dyn Observer = if self.ranks.is_first() {
            observer
        } else {
            &mut unobserved
        };
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
            let written = self.write(&MetricsRecord::Step(record));
            self.ranks.all_succeed(written)?;
            let every = self.progress.config.checkpoint.every_steps;
            let last = self.progress.step_in_epoch == steps.len();
            if !last && self.ranks.any(stop.load(Ordering::Relaxed))? {
                return Ok(Ended::Interrupted);
            }
            if !last && self.progress.step.is_multiple_of(every) {
                self.save()?;
            }
        }
        self.end_epoch(observer)?;
        let finished = self.progress.epoch == self.progress.config.optimizer.epochs;
        if !finished && self.ranks.any(stop.load(Ordering::Relaxed))? {
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
        let step = Step {
            config: &config,
            network: &self.network,
            head: &self.head,
            part,
            epoch: self.progress.epoch,
            number: self.progress.step,
        };
        let batches: Vec<&[usize]> = indices.chunks(config.data.batch_size).collect();
        let whole = step.take(&batches, &self.ranks)?;
        let mut sums = LossSums::default();
        for losses in &whole.found.losses {
            sums.add(losses);
        }
        self.progress.refused.extend(whole.found.refused);
        let step = self.progress.step;
        let learning_rate = config.schedule().at(step, steps_per_epoch);
        let losses = sums.mean();
        if let Some(losses) = &losses {
            let gradients = whole.gradients.divide(sums.batches);
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
            ranks: whole.times,
        })
    }

    /// Exports and evaluates the draft, writes the record of the epoch and saves the state.
    fn end_epoch(&mut self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        let train = self.progress.losses.mean();
        let refused = std::mem::take(&mut self.progress.refused);
        let ranks = self.ranks.clone();
        ranks.all_succeed(match (&train, refused.iter().next()) {
            (None, Some((id, why))) => Err(TrainError::AllRefused {
                epoch: self.progress.epoch,
                refused: refused.len(),
                first: format!("{id}, {why}"),
            }),
            _ => Ok(()),
        })?;
        let record = EpochRecord {
            epoch: self.progress.epoch,
            step: self.progress.step,
            train,
            refused,
            held_out: None,
            best: false,
        };
        let best = ranks.first_found(|| {
            let record = self.judged(record, observer)?;
            observer.epoch(&record);
            let tree_tau = record.held_out.as_ref().and_then(|found| found.tree_tau);
            let (epoch, is_best) = (record.epoch, record.best);
            self.write(&MetricsRecord::Epoch(Box::new(record)))?;
            let best = tree_tau.filter(|_| is_best);
            Ok(best.map(|tree_tau| Best { epoch, tree_tau }))
        })?;
        self.progress.best = best.or(self.progress.best);
        self.progress.epoch += 1;
        self.progress.step_in_epoch = 0;
        self.progress.losses = LossSums::default();
        self.save()
    }

    /// Exports the draft to `last` and evaluates it. If it is the best so far, exports it to
    /// `best`, too. Returns the completed record.
    fn judged(
        &self,
        record: EpochRecord,
        observer: &mut dyn Observer,
    ) -> Result<EpochRecord, TrainError> {
        let last = self.paths.out.join("last");
        let parameters = self.network.parameters()?;
        self.export(&parameters).write(&last)?;
        let held_out = self.judge(&last, observer)?;
        let tree_tau = held_out.as_ref().and_then(|held_out| held_out.tree_tau);
        let best = match (tree_tau, self.progress.best) {
            (Some(tau), Some(best)) => tau > best.tree_tau,
            (None, Some(_)) => false,
            // As long as no draft has been evaluated, the last one counts as the best.
            (_, None) => true,
        };
        if best {
            let dir = self.paths.out.join("best");
            self.export(&parameters).write(&dir)?;
        }
        Ok(EpochRecord {
            held_out,
            best,
            ..record
        })
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

    /// Writes a line of the metrics on the first rank; does nothing on the others.
    fn write(&mut self, record: &MetricsRecord) -> Result<(), TrainError> {
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
        self.ranks.on_first(|| state.write(&self.paths.out))?;
        Ok(())
    }
}

/// Selects the rows of tokens from a head's weight `[vocab, hidden]`.
fn rows(weight: &Tensor<2>, tokens: &[u32]) -> Tensor<2> {
    let tokens: Vec<usize> = tokens.iter().map(|&token| token as usize).collect();
    weight.clone().select(0, indices(&tokens, &weight.device()))
}
