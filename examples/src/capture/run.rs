//! Capturing the positions of a share, one after the other.

use std::time::Duration;

use vispec_core::TreeSize;
use vispec_data::DataError;
use vispec_data::capture::{
    CaptureHeader, CaptureWriter, ElementType, LeftOut, LeftOutKind, Manifest, TargetIdentity,
    fingerprint,
};
use vispec_data::conversations::{ConversationSource, Row};
use vispec_models::{Engine, Method};

use super::flags::{SourceFlags, StageFlags, target_name};
use super::progress::CaptureProgress;
use super::sample::{Computed, SampleMaker};
use crate::failure::Failure;

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
    let mut source = source_flags.conversations()?.open()?;
    let range = source_flags.range(source.len())?;
    let stage = stage_flags.stage(&engine, source_flags.source);
    let header = CaptureHeader {
        target: identity(&engine)?,
        storage: stage_flags.storage,
        dtype: element_type(&engine),
        stage: stage.clone(),
        source: source_flags.identity(&source)?,
        range,
        shard_positions: stage_flags.shard_positions,
    };
    let covers = source_flags.shard.of(range);
    let writer = CaptureWriter::open(&stage_flags.out, header, covers)?;
    let maker = SampleMaker {
        engine: &engine,
        method,
        tree,
        stage,
        storage: stage_flags.storage,
    };
    run(writer, &mut source, &maker, source_flags.max_bad_rows)
}

fn run(
    mut writer: CaptureWriter,
    source: &mut ConversationSource,
    maker: &SampleMaker<'_>,
    max_bad_rows: usize,
) -> Result<Outcome, Failure> {
    let missing = writer.missing();
    let total = writer.manifest().covers.len();
    let mut progress = CaptureProgress::new(total, total - missing.len());
    let before = writer.time();
    let is_bad = |left_out: &&LeftOut| left_out.kind == LeftOutKind::Bad;
    let mut n_bad = writer.manifest().left_out().filter(is_bad).count();
    let mut n_left_out = writer.manifest().left_out().count();
    for &position in &missing {
        let computed = one(position, source, maker, &mut progress)?;
        let left_out = match computed {
            Computed::Sample(sample, vectors) => {
                match vectors {
                    Some(vectors) => writer.put(position, &sample, &vectors)?,
                    None => writer.put_tokens(position, &sample)?,
                }
                None
            }
            Computed::Dropped(reason) => Some((LeftOutKind::Dropped, reason)),
            Computed::Bad(error) => {
                n_bad += 1;
                tolerate(&error, n_bad, max_bad_rows)?;
                Some((LeftOutKind::Bad, error.to_string()))
            }
        };
        if let Some((kind, reason)) = left_out {
            n_left_out += 1;
            writer.leave_out(LeftOut {
                position,
                kind,
                reason,
            })?;
        }
        progress.step(n_left_out);
    }
    let elapsed = progress.finish();
    let files = writer.time().saturating_sub(before) + progress.reading;
    Ok(Outcome {
        manifest: writer.finish()?,
        captured: missing.len(),
        elapsed,
        files,
    })
}

fn one(
    position: usize,
    source: &mut ConversationSource,
    maker: &SampleMaker<'_>,
    progress: &mut CaptureProgress,
) -> Result<Computed, Failure> {
    let started = std::time::Instant::now();
    let row = source.conversation(position);
    progress.reading += started.elapsed();
    match row {
        Ok(Row::Kept(conversation)) => {
            match maker.sample(position, &conversation, &mut progress.reading)? {
                Computed::Dropped(reason) => Ok(Computed::Dropped(format!(
                    "{}: {reason}",
                    conversation.origin
                ))),
                computed => Ok(computed),
            }
        }
        Ok(Row::Dropped { origin, reason }) => Ok(Computed::Dropped(format!("{origin}: {reason}"))),
        Err(error) if error.is_of_one_row() => Ok(Computed::Bad(error)),
        Err(error) => Err(error.into()),
    }
}

/// Refuses one bad row too many.
fn tolerate(error: &DataError, n_bad: usize, limit: usize) -> Result<(), Failure> {
    if n_bad <= limit {
        return Ok(());
    }
    let message = format!("{n_bad} bad rows, {limit} are tolerated (--max-bad-rows): {error}");
    Err(anyhow::anyhow!(message).into())
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
