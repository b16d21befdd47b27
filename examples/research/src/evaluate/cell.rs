//! Measuring one cell, from its loaded models to its last record.

use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use vispec_data::{Sample, TaskDefinition};
use vispec_models::Method;
use vispec_processor::SpecialText;
use vispec_report::record::{CellProgress, FailureRecord, PromptRecord, RecordWriter, Shard};

use super::arms::{Arms, Question};
use super::prompts::{Decoded, Prompts, continue_with, prompt_id};
use super::setup::{Setup, say};
use examples_answer::failure::{Failure, with_causes};
use examples_answer::run::warm_up;

/// Measures the cell in `out`, or its remaining prompts.
///
/// # Errors
/// Any error of task, models and files; and at the end, an error if prompts could not be answered.
pub(super) fn measure(mut setup: Setup, out: &Path) -> Result<(), Failure> {
    let opened = RecordWriter::open(out, &setup.header)?;
    if opened.dropped_bytes > 0 {
        let bytes = opened.dropped_bytes;
        say(&format!("cut off {bytes} bytes of an incomplete record"))?;
    }
    let runner = Runner {
        arms: Arms {
            engine: &setup.engine,
            method: setup.method,
            plain: setup.plain,
            speculative: setup.speculative,
        },
        task: &setup.task,
        writer: opened.writer,
        progress: opened.progress,
        planned: setup.header.planned_prompts,
        tally: Tally::default(),
    };
    runner.run(&mut setup.prompts, setup.header.shard)
}

/// Statistics of this process.
#[derive(Default)]
struct Tally {
    warmed_up: bool,
    answered: u64,
    failed: Vec<String>,
    /// Time spent in models, including warm-up and image processing.
    models: Duration,
}

struct Runner<'a> {
    arms: Arms<'a>,
    task: &'a TaskDefinition,
    writer: RecordWriter,
    progress: CellProgress,
    planned: u64,
    tally: Tally,
}

impl Runner<'_> {
    fn run(mut self, prompts: &mut Prompts, shard: Shard) -> Result<(), Failure> {
        let started = Instant::now();
        let bar = ProgressBar::new(self.planned);
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_position(self.progress.done().len() as u64);
        for index in prompts.of_shard(shard) {
            let sample = prompts.sample(index)?;
            self.sample(&sample, index, &bar)?;
        }
        bar.finish_and_clear();
        self.writer.sync()?;
        self.conclude(prompts, started.elapsed())
    }

    /// Answers the turns of a sample that have no record yet. Earlier turns are answered again if a
    /// later turn needs their answers.
    fn sample(&mut self, sample: &Sample, index: u64, bar: &ProgressBar) -> Result<(), Failure> {
        let n_turns = 1 + sample.following_turns.len();
        let done = self.progress.done();
        let is_open = |&turn: &usize| !done.contains(&prompt_id(sample, turn));
        let Some(last) = (0..n_turns).rev().find(is_open) else {
            return Ok(());
        };
        let open: Vec<usize> = (0..n_turns).filter(is_open).collect();
        let mut messages = sample.messages.clone();
        for turn in 0..=last {
            let id = prompt_id(sample, turn);
            let record = match self.answer(sample, &messages, &id, index) {
                Ok(record) => record,
                Err(Failure::Usage(message)) => return Err(Failure::Usage(message)),
                Err(Failure::Other(error)) => {
                    let left: Vec<usize> = open.iter().copied().filter(|&o| o >= turn).collect();
                    return self.give_up(sample, &left, &with_causes(&error), bar);
                }
            };
            if open.contains(&turn) {
                self.writer.append(&record)?;
                self.tally.answered += 1;
                bar.inc(1);
                bar.suspend(|| say(&self.line(&record)))?;
            }
            if let Some(question) = sample.following_turns.get(turn) {
                let tokenizer = self.arms.engine.processor().tokenizer();
                let answer = tokenizer.decode(&record.plain.token_ids, SpecialText::Skip)?;
                continue_with(&mut messages, answer, question);
            }
        }
        Ok(())
    }

    fn answer(
        &mut self,
        sample: &Sample,
        messages: &vispec_processor::Messages,
        id: &str,
        index: u64,
    ) -> Result<PromptRecord, Failure> {
        let decode_started = Instant::now();
        let shown = Decoded::of(sample)?;
        let decoded = decode_started.elapsed();
        let (prompt, mut encode) = self.arms.engine.encode_media(messages, shown.media())?;
        encode.preprocess += decoded;
        let started = Instant::now();
        if !self.tally.warmed_up {
            let methods = [Method::None, self.arms.method];
            warm_up(self.arms.engine, &prompt, &methods, &self.arms.speculative)?;
            self.tally.warmed_up = true;
        }
        let record = self.arms.answer(&Question {
            prompt_id: id.to_owned(),
            index,
            prompt,
            encode,
        });
        self.tally.models += started.elapsed() + encode.preprocess + encode.vision;
        record
    }

    /// Records that turns cannot be answered; the cell continues.
    fn give_up(
        &mut self,
        sample: &Sample,
        turns: &[usize],
        why: &str,
        bar: &ProgressBar,
    ) -> Result<(), Failure> {
        for &turn in turns {
            let prompt_id = prompt_id(sample, turn);
            bar.suspend(|| say(&format!("{prompt_id}: not answered: {why}")))?;
            self.tally.failed.push(format!("{prompt_id}: {why}"));
            self.writer.append_failure(FailureRecord {
                prompt_id,
                message: why.to_owned(),
            })?;
        }
        Ok(())
    }

    fn line(&self, record: &PromptRecord) -> String {
        let done = self.progress.done().len() as u64 + self.tally.answered;
        let speed = |arm: &vispec_report::record::ArmRecord| {
            1e3 * arm.token_ids.len() as f64 / arm.times_ms.decode.max(f64::MIN_POSITIVE)
        };
        let accepted = &record.speculative.accepted_per_cycle;
        let tau = f64::from(accepted.iter().sum::<u32>()) / accepted.len().max(1) as f64;
        format!(
            "{done}/{} {} {}: {} tokens, plain {:.1} tok/s, {} {:.1} tok/s, tau {tau:.2}{}",
            self.planned,
            self.task.name(),
            record.prompt_id,
            record.plain.token_ids.len(),
            speed(&record.plain),
            self.arms.method,
            speed(&record.speculative),
            if record.identical() {
                ""
            } else {
                ", DIFFERENT"
            },
        )
    }

    fn conclude(&self, prompts: &Prompts, elapsed: Duration) -> Result<(), Failure> {
        for row in prompts.bad_rows() {
            say(&format!("left out: {row}"))?;
        }
        if self.tally.answered > 0 {
            let outside = elapsed.saturating_sub(self.tally.models);
            say(&format!(
                "{} prompts answered in {:.1} s, {:.2} % of it outside the models",
                self.tally.answered,
                elapsed.as_secs_f64(),
                100.0 * outside.as_secs_f64() / elapsed.as_secs_f64(),
            ))?;
        }
        let Some(first) = self.tally.failed.first() else {
            return Ok(());
        };
        let (failed, planned) = (self.tally.failed.len(), self.planned);
        Err(
            anyhow::anyhow!("{failed} of {planned} prompts were not answered, the first: {first}")
                .into(),
        )
    }
}
