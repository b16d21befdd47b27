//! The plain and all speculative answers to one prompt.

use std::time::Duration;

use jiff::Timestamp;
use vispec_core::{FinishReason, GenerationStats, Prompt, TokenId};
use vispec_models::{EncodeTimes, EncodedPrompt, Engine, Method};
use vispec_report::record::{self, ArmRecord, PhaseTimes, PromptRecord, SCHEMA_VERSION};

use super::divergence::compare;
use examples_answer::failure::Failure;
use examples_answer::memory::peak_rss_bytes;
use examples_answer::run::{Run, Settings, answer};

/// Plain decoding, and decoding with the method of the cells.
pub(super) struct Arms<'a> {
    pub(super) engine: &'a Engine,
    pub(super) method: Method,
    pub(super) plain: Settings,
}

/// A prompt to answer.
pub(super) struct Question {
    pub(super) prompt_id: String,
    /// Index of the sample in the task.
    pub(super) index: u64,
    pub(super) prompt: EncodedPrompt,
    pub(super) encode: EncodeTimes,
}

impl Arms<'_> {
    /// Answers a prompt plainly, and speculatively with each of the `trees`. Returns one record for
    /// each tree, all with the same plain answer. The order is reversed from sample to sample, so
    /// that no arm always benefits from memory warmed up by another.
    ///
    /// # Errors
    /// Any error of the models.
    pub(super) fn answer(
        &self,
        question: &Question,
        trees: &[&Settings],
    ) -> Result<Vec<PromptRecord>, Failure> {
        let run = |method, settings: &Settings| {
            answer(self.engine, &question.prompt, method, settings, &mut ())
        };
        let speculative = |&tree: &&Settings| run(self.method, tree);
        let (plain, speculative) = if question.index.is_multiple_of(2) {
            let plain = run(Method::None, &self.plain)?;
            let speculative = trees.iter().map(speculative);
            (plain, speculative.collect::<Result<Vec<Run>, _>>()?)
        } else {
            let last_first = trees.iter().rev().map(speculative);
            let mut speculative = last_first.collect::<Result<Vec<Run>, _>>()?;
            speculative.reverse();
            (run(Method::None, &self.plain)?, speculative)
        };
        let plain_tokens = plain.generation.tokens.clone();
        let plain = arm(plain, question.encode)?;
        let records = speculative
            .into_iter()
            .map(|speculative| self.record(question, (&plain_tokens, plain.clone()), speculative));
        records.collect()
    }

    fn record(
        &self,
        question: &Question,
        (plain_tokens, plain): (&[TokenId], ArmRecord),
        speculative: Run,
    ) -> Result<PromptRecord, Failure> {
        let image_tokens = question
            .prompt
            .image_runs()
            .iter()
            .map(|run| run.len())
            .sum();
        Ok(PromptRecord {
            schema_version: SCHEMA_VERSION,
            prompt_id: question.prompt_id.clone(),
            index: question.index,
            prompt_tokens: count(question.prompt.token_ids().len()),
            image_tokens: count(image_tokens),
            seed: self.plain.seed,
            finished_at: Timestamp::now(),
            peak_rss_bytes: peak_rss_bytes(),
            first_divergence: compare(
                self.engine.target(),
                &question.prompt,
                plain_tokens,
                &speculative.generation.tokens,
            )?,
            plain,
            speculative: arm(speculative, question.encode)?,
        })
    }
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn arm(run: Run, encode: EncodeTimes) -> Result<ArmRecord, Failure> {
    let generation = run.generation;
    Ok(ArmRecord {
        finish_reason: match generation.finish_reason {
            FinishReason::Stop => record::FinishReason::Stop,
            FinishReason::Length => record::FinishReason::Length,
            FinishReason::Context => record::FinishReason::Context,
            other => return Err(anyhow::anyhow!("unexpected finish reason {other}").into()),
        },
        accepted_per_cycle: generation.stats.accepted_per_cycle().to_vec(),
        nodes_per_cycle: generation.stats.nodes_per_cycle().to_vec(),
        times_ms: times(&generation.stats, encode),
        token_ids: generation.tokens,
    })
}

fn times(stats: &GenerationStats, encode: EncodeTimes) -> PhaseTimes {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    PhaseTimes {
        preprocess: ms(encode.preprocess),
        vision: ms(encode.vision),
        prefill: ms(stats.prefill_time()),
        draft: ms(stats.draft_time()),
        verify: ms(stats.verify_time()),
        other: ms(stats.other_time()),
        decode: ms(stats.decode_time()),
    }
}
