//! A capture from its flags to its last shard.

use std::time::Duration;

use vispec_core::{GenerationConfig, Sampler, TreeSize};
use vispec_data::capture::{
    CaptureHeader, CaptureStage, CaptureWriter, ElementType, LeftOut, LeftOutKind, Manifest,
    TargetIdentity, fingerprint,
};
use vispec_models::{Engine, Method};

use super::flags::{SourceFlags, SourceName, StageFlags, target_name};
use super::own_questions::make_questions;
use super::progress::CaptureProgress;
use super::question::Questions;
use super::read::AnswerReader;
use super::sample::{Sample, SampleMaker};
use super::write::AnswerWriter;
use crate::together::Together;
use examples_answer::failure::Failure;
use examples_answer::run::Settings;

/// How a finished run went.
#[derive(Debug)]
pub struct Outcome {
    /// What the capture holds.
    pub manifest: Manifest,
    /// Positions that this run captured.
    pub captured: usize,
    /// Time from the first position to the last.
    pub elapsed: Duration,
    /// Part of it that was spent on reading and writing files.
    pub files: Duration,
}

/// Captures what is missing of the share that the flags name.
///
/// # Errors
/// More bad rows than are tolerated, and any error of models and files.
pub fn capture(
    source_flags: &SourceFlags,
    stage_flags: &StageFlags,
    engine: Engine,
    (method, tree): (Method, TreeSize),
) -> Result<Outcome, Failure> {
    let engine = match stage_flags.pixels(engine.processor().family()) {
        None => engine,
        Some((min, max)) => engine
            .with_pixels(Some(min), Some(max))
            .map_err(Failure::usage)?,
    };
    if source_flags.source == SourceName::OwnQuestions {
        make_questions(source_flags, stage_flags, &engine, (method, tree.clone()))?;
    }
    let files = source_flags.conversations(stage_flags)?;
    let source = files.open()?;
    let range = source_flags.range(source.len())?;
    let stage = stage_flags.stage(&engine, source_flags.source);
    let states = stage_flags.residual_states(&engine)?;
    let header = CaptureHeader {
        target: identity(&engine)?,
        storage: stage_flags.storage,
        states: states.clone(),
        dtype: element_type(&engine),
        stage: stage.clone(),
        source: source_flags.identity(&files, &source)?,
        range,
        shard_positions: stage_flags.shard_positions,
    };
    let covers = source_flags.share().of(range);
    let answers = Answers::new(&engine, &stage, (stage_flags, states), (method, tree))?;
    let writer = CaptureWriter::open(&stage_flags.out, header, covers)?;
    let is_bad = |left_out: &&LeftOut| left_out.kind == LeftOutKind::Bad;
    let run = Run {
        questions: Questions {
            source,
            stage,
            folder: stage_flags.out.clone(),
            reading: Duration::ZERO,
        },
        answers,
        progress: CaptureProgress::new(
            "positions",
            covers.len(),
            covers.len() - writer.missing().len(),
        ),
        n_left_out: writer.manifest().left_out().count(),
        n_bad: writer.manifest().left_out().filter(is_bad).count(),
        max_bad_rows: source_flags.max_bad_rows,
        writer,
    };
    run.finish()
}

/// Where answers come from.
enum Answers<'e> {
    /// They are there: a sample at a time.
    Read(AnswerReader<'e>),
    /// The target writes them: some at a time.
    Write(AnswerWriter<'e>),
}

/// A run under way.
struct Run<'e> {
    questions: Questions,
    answers: Answers<'e>,
    writer: CaptureWriter,
    progress: CaptureProgress,
    n_left_out: usize,
    n_bad: usize,
    max_bad_rows: usize,
}

impl Run<'_> {
    /// Takes positions in order and stores each as soon as it is settled, so that a kill loses only
    /// those under way; shards have them in order. Where one ends the run, those under way are
    /// finished first, so that the run ends with the first failure whatever the size of the batch.
    fn finish(mut self) -> Result<Outcome, Failure> {
        let before = self.writer.time();
        let missing = self.writer.missing();
        let mut open = missing.iter().copied();
        let mut failed: Option<(usize, Failure)> = None;
        loop {
            while failed.is_none() && self.answers.have_room() {
                let Some(position) = open.next() else { break };
                if let Err(failure) = self.take(position) {
                    failed = Some((position, failure));
                }
            }
            let Answers::Write(answers) = &mut self.answers else {
                break;
            };
            if answers.together.is_empty() {
                break;
            }
            for (position, sample) in answers.pass() {
                match sample {
                    Ok(sample) => self.store(position, &sample)?,
                    Err(failure) => {
                        let is_first = failed.as_ref().is_none_or(|(first, _)| position < *first);
                        if is_first {
                            failed = Some((position, failure));
                        }
                    }
                }
            }
        }
        let elapsed = self.progress.finish();
        if let Some((_, failure)) = failed {
            return Err(failure);
        }
        let files = self.writer.time().saturating_sub(before);
        let reading = self.questions.reading + self.answers.reading();
        Ok(Outcome {
            manifest: self.writer.finish()?,
            captured: missing.len(),
            elapsed,
            files: files + reading,
        })
    }

    /// Settles a position, or has the target begin to write.
    fn take(&mut self, position: usize) -> Result<(), Failure> {
        let (place, question) = match self.questions.ask(position)? {
            Ok(asked) => asked,
            Err(left_out) => return self.leave_out(left_out),
        };
        let left_out = match &mut self.answers {
            Answers::Read(answers) => match answers.read(place, &question)? {
                Ok(sample) => return self.store(position, &sample),
                Err(left_out) => Some(left_out),
            },
            Answers::Write(answers) => answers.begin(place, &question)?,
        };
        match left_out {
            Some(left_out) => self.leave_out(left_out),
            None => Ok(()),
        }
    }

    fn store(&mut self, position: usize, sample: &Sample) -> Result<(), Failure> {
        match &sample.vectors {
            Some(vectors) => self.writer.put(position, &sample.tokens, vectors)?,
            None => self.writer.put_tokens(position, &sample.tokens)?,
        }
        self.progress.step(1, self.n_left_out);
        Ok(())
    }

    fn leave_out(&mut self, left_out: LeftOut) -> Result<(), Failure> {
        if left_out.kind == LeftOutKind::Bad {
            self.n_bad += 1;
            let (n_bad, limit) = (self.n_bad, self.max_bad_rows);
            if n_bad > limit {
                let message = format!(
                    "{n_bad} bad rows, {limit} are tolerated (--max-bad-rows): {}",
                    left_out.reason
                );
                return Err(anyhow::anyhow!(message).into());
            }
        }
        self.n_left_out += 1;
        self.writer.leave_out(left_out)?;
        self.progress.step(1, self.n_left_out);
        Ok(())
    }
}

impl<'e> Answers<'e> {
    fn new(
        engine: &'e Engine,
        stage: &CaptureStage,
        (flags, states): (&StageFlags, Vec<usize>),
        (method, tree): (Method, TreeSize),
    ) -> Result<Self, Failure> {
        let maker = SampleMaker {
            storage: flags.storage,
            states,
            reading: Duration::ZERO,
        };
        Ok(match *stage {
            CaptureStage::TeacherForced { max_tokens, .. } => Self::Read(AnswerReader {
                engine,
                max_tokens,
                maker,
            }),
            CaptureStage::Generated {
                max_new_tokens,
                temperature,
                seed,
                ..
            } => Self::Write(AnswerWriter {
                together: Together::new(engine, method, flags.batch()),
                settings: Settings {
                    grammar: None,
                    config: GenerationConfig {
                        max_new_tokens,
                        stop_tokens: engine.processor().eos_token_ids().iter().copied().collect(),
                    },
                    sampler: Sampler::new(temperature, None, None).map_err(Failure::usage)?,
                    seed,
                    tree,
                },
                maker,
            }),
        })
    }

    /// Whether another position can be taken.
    fn have_room(&self) -> bool {
        match self {
            Self::Read(_) => true,
            Self::Write(answers) => answers.together.has_room(),
        }
    }

    /// Time spent on files of images.
    fn reading(&self) -> Duration {
        match self {
            Self::Read(answers) => answers.maker.reading,
            Self::Write(answers) => answers.maker.reading,
        }
    }
}

fn identity(engine: &Engine) -> Result<TargetIdentity, Failure> {
    let target = engine.target();
    Ok(TargetIdentity {
        name: target_name(target.dir()),
        fingerprint: fingerprint(target.dir())?,
        hidden: target.hidden(),
        dtype: target.precision().to_string(),
    })
}

/// Element type of the target's weights, which full captures are stored in.
fn element_type(engine: &Engine) -> ElementType {
    match engine.target().precision().to_string().as_str() {
        "f16" => ElementType::F16,
        "f32" => ElementType::F32,
        _ => ElementType::Bf16,
    }
}
