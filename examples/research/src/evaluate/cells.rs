//! Measuring the cells of a setup, from its loaded models to their last records.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use vispec_data::{Sample, TaskDefinition};
use vispec_models::Method;
use vispec_processor::SpecialText;
use vispec_report::record::{
    CellProgress, FailureRecord, PromptRecord, RecordWriter, Shard, TreeSettings,
};

use super::arms::{Arms, Question};
use super::prompts::{Decoded, Prompts, continue_with, prompt_id};
use super::setup::{Cell, Setup, say};
use examples_answer::failure::{Failure, with_causes};
use examples_answer::run::{Settings, warm_up};

/// Measures the cells, or their remaining prompts.
///
/// # Errors
/// Any error of task, models and files; and at the end, an error if prompts could not be answered.
pub(super) fn measure(mut setup: Setup, shard: Shard) -> Result<(), Failure> {
    let cells = setup.cells.into_iter().map(OpenCell::open);
    let runner = Runner {
        arms: Arms {
            engine: &setup.engine,
            method: setup.method,
            plain: setup.plain,
        },
        task: &setup.task,
        cells: cells.collect::<Result<_, _>>()?,
        tally: Tally::default(),
    };
    runner.run(&mut setup.prompts, shard)
}

/// A cell that is being measured.
struct OpenCell {
    writer: RecordWriter,
    /// The prompts that had a record when the cell was opened.
    progress: CellProgress,
    planned: u64,
    tree: Option<TreeSettings>,
    speculative: Settings,
    answered: u64,
}

impl OpenCell {
    fn open(cell: Cell) -> Result<Self, Failure> {
        let opened = RecordWriter::open(&cell.out, &cell.header)?;
        if opened.dropped_bytes > 0 {
            let bytes = opened.dropped_bytes;
            say(&format!("cut off {bytes} bytes of an incomplete record"))?;
        }
        Ok(Self {
            writer: opened.writer,
            progress: opened.progress,
            planned: cell.header.planned_prompts,
            tree: cell.header.settings.tree,
            speculative: cell.speculative,
            answered: 0,
        })
    }

    fn is_done(&self, prompt_id: &str) -> bool {
        self.progress.done().contains(prompt_id)
    }

    fn n_done(&self) -> u64 {
        self.progress.done().len() as u64 + self.answered
    }
}

/// Statistics of this process.
#[derive(Default)]
struct Tally {
    warmed_up: bool,
    failed: Vec<String>,
    /// Time spent in models, including warm-up and image processing.
    models: Duration,
}

struct Runner<'a> {
    arms: Arms<'a>,
    task: &'a TaskDefinition,
    cells: Vec<OpenCell>,
    tally: Tally,
}

impl Runner<'_> {
    fn run(mut self, prompts: &mut Prompts, shard: Shard) -> Result<(), Failure> {
        let started = Instant::now();
        let bar = ProgressBar::new(self.planned());
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_position(self.cells.iter().map(OpenCell::n_done).sum());
        for index in prompts.of_shard(shard) {
            let sample = prompts.sample(index)?;
            self.sample(&sample, index, &bar)?;
        }
        bar.finish_and_clear();
        for cell in &mut self.cells {
            cell.writer.sync()?;
        }
        self.conclude(prompts, started.elapsed())
    }

    /// Returns the number of records that complete cells hold.
    fn planned(&self) -> u64 {
        self.cells.iter().map(|cell| cell.planned).sum()
    }

    /// Answers the turns of a sample for the cells that have no record of them yet. Earlier turns
    /// are answered again if a later turn needs their answers.
    fn sample(&mut self, sample: &Sample, index: u64, bar: &ProgressBar) -> Result<(), Failure> {
        let n_turns = 1 + sample.following_turns.len();
        // For each turn, the cells without a record of it.
        let open = (0..n_turns).map(|turn| {
            let id = prompt_id(sample, turn);
            let cells = self.cells.iter().enumerate();
            Vec::from_iter(cells.filter(|(_, cell)| !cell.is_done(&id)).map(|(i, _)| i))
        });
        let open: Vec<Vec<usize>> = open.collect();
        let Some(last) = open.iter().rposition(|cells| !cells.is_empty()) else {
            return Ok(());
        };
        let mut messages = sample.messages.clone();
        for turn in 0..=last {
            let id = prompt_id(sample, turn);
            // Without an open cell, the first one provides the answer that the next turn follows.
            let cells = match open[turn].as_slice() {
                [] => &[0],
                cells => cells,
            };
            let records = match self.answer(sample, &messages, (&id, index), cells) {
                Ok(records) => records,
                Err(Failure::Usage(message)) => return Err(Failure::Usage(message)),
                Err(Failure::Other(error)) => {
                    let left = open.iter().enumerate().skip(turn);
                    return self.give_up(sample, left, &with_causes(&error), bar);
                }
            };
            for (&cell, record) in open[turn].iter().zip(&records) {
                self.cells[cell].writer.append(record)?;
                self.cells[cell].answered += 1;
                bar.inc(1);
                bar.suspend(|| say(&self.line(&self.cells[cell], record)))?;
            }
            if let (Some(question), Some(record)) =
                (sample.following_turns.get(turn), records.first())
            {
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
        (id, index): (&str, u64),
        cells: &[usize],
    ) -> Result<Vec<PromptRecord>, Failure> {
        let decode_started = Instant::now();
        let shown = Decoded::of(sample)?;
        let decoded = decode_started.elapsed();
        let (prompt, mut encode) = self.arms.engine.encode_media(messages, shown.media())?;
        encode.preprocess += decoded;
        let started = Instant::now();
        let trees = cells.iter().map(|&cell| &self.cells[cell].speculative);
        let trees: Vec<&Settings> = trees.collect();
        if !self.tally.warmed_up {
            let arms = &self.arms;
            warm_up(arms.engine, &prompt, &[Method::None], &arms.plain)?;
            for tree in &trees {
                warm_up(arms.engine, &prompt, &[arms.method], tree)?;
            }
            self.tally.warmed_up = true;
        }
        let question = Question {
            prompt_id: id.to_owned(),
            index,
            prompt,
            encode,
        };
        let records = self.arms.answer(&question, &trees);
        self.tally.models += started.elapsed() + encode.preprocess + encode.vision;
        records
    }

    /// Records that turns cannot be answered, each in the cells that have no record of it; the
    /// cells continue.
    fn give_up<'b>(
        &mut self,
        sample: &Sample,
        turns: impl Iterator<Item = (usize, &'b Vec<usize>)>,
        why: &str,
        bar: &ProgressBar,
    ) -> Result<(), Failure> {
        for (turn, cells) in turns.filter(|(_, cells)| !cells.is_empty()) {
            let prompt_id = prompt_id(sample, turn);
            bar.suspend(|| say(&format!("{prompt_id}: not answered: {why}")))?;
            for &cell in cells {
                self.tally.failed.push(format!("{prompt_id}: {why}"));
                self.cells[cell].writer.append_failure(FailureRecord {
                    prompt_id: prompt_id.clone(),
                    message: why.to_owned(),
                })?;
            }
        }
        Ok(())
    }

    fn line(&self, cell: &OpenCell, record: &PromptRecord) -> String {
        let speed = |arm: &vispec_report::record::ArmRecord| {
            1e3 * arm.token_ids.len() as f64 / arm.times_ms.decode.max(f64::MIN_POSITIVE)
        };
        let accepted = &record.speculative.accepted_per_cycle;
        let tau = f64::from(accepted.iter().sum::<u32>()) / accepted.len().max(1) as f64;
        // With one cell, the tree is no news.
        let tree = cell.tree.filter(|_| self.cells.len() > 1);
        let tree = tree.map_or_else(String::new, |tree| format!(" {tree}"));
        format!(
            "{}/{} {} {}: {} tokens, plain {:.1} tok/s, {}{tree} {:.1} tok/s, tau {tau:.2}{}",
            cell.n_done(),
            cell.planned,
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
        let answered: u64 = self.cells.iter().map(|cell| cell.answered).sum();
        if answered > 0 {
            let outside = elapsed.saturating_sub(self.tally.models);
            say(&format!(
                "{answered} prompts answered in {:.1} s, {:.2} % of it outside the models",
                elapsed.as_secs_f64(),
                100.0 * outside.as_secs_f64() / elapsed.as_secs_f64(),
            ))?;
        }
        let Some(first) = self.tally.failed.first() else {
            return Ok(());
        };
        let (failed, planned) = (self.tally.failed.len(), self.planned());
        Err(
            anyhow::anyhow!("{failed} of {planned} prompts were not answered, the first: {first}")
                .into(),
        )
    }
}
