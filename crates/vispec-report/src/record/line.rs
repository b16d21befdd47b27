//! One line of records: a prompt answered by both arms, or a prompt that could not be answered.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::SCHEMA_VERSION;
use crate::error::{ReportError, Result};

/// Reason why an answer ended.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FinishReason {
    /// A stop token, which is the last token of the answer.
    Stop,
    /// The maximum number of tokens was reached.
    Length,
    /// The end of the target's context was reached.
    Context,
}

/// Milliseconds that one answer spent in each phase.
///
/// `preprocess`, `vision` and `prefill` precede the first cycle. `decode` is the time of all
/// cycles, and equals the sum of `draft`, `verify` and `other` up to rounding.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseTimes {
    /// Image decoding, image processing, chat template and tokenizer.
    pub preprocess: f64,
    /// The vision tower.
    pub vision: f64,
    /// The target's prefill and the sampling of the first token.
    pub prefill: f64,
    /// The drafter, including its prefill.
    pub draft: f64,
    /// Verify passes of the target, and sampling from their logits.
    pub verify: f64,
    /// Time of cycles outside of drafter and target: caches, features, bookkeeping.
    pub other: f64,
    /// All cycles.
    pub decode: f64,
}

impl PhaseTimes {
    /// Returns the time of the whole answer: everything before the first cycle, and all cycles.
    pub(crate) fn total(&self) -> f64 {
        self.preprocess + self.vision + self.prefill + self.decode
    }

    fn all_finite(&self) -> bool {
        [
            self.preprocess,
            self.vision,
            self.prefill,
            self.draft,
            self.verify,
            self.other,
            self.decode,
        ]
        .iter()
        .all(|ms| ms.is_finite() && *ms >= 0.0)
    }
}

/// One answer to a prompt.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArmRecord {
    /// Tokens of the answer, including the token from prefill and a stop token.
    pub token_ids: Vec<u32>,
    /// Reason why the answer ended.
    pub finish_reason: FinishReason,
    /// Emitted draft tokens of each cycle, without root and bonus token; all 0 in the plain arm.
    pub accepted_per_cycle: Vec<u32>,
    /// Nodes that the target verified in each cycle, including the root; all 1 in the plain arm.
    pub nodes_per_cycle: Vec<u32>,
    /// Time of each phase. Work that both arms share (preprocessing, vision tower) is counted in
    /// both with the same times.
    pub times_ms: PhaseTimes,
}

/// The first token at which the arms differ.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Divergence {
    /// Position in the answer, counted from 0.
    pub position: u32,
    /// Token of the plain arm; absent if its answer ended earlier.
    pub plain_token: Option<u32>,
    /// Token of the speculative arm; absent if its answer ended earlier.
    pub speculative_token: Option<u32>,
    /// Plain logit of `plain_token` minus that of `speculative_token`, if computed. A gap near the
    /// rounding error of the element type is a tie; a larger gap indicates a fault.
    pub logit_gap: Option<f32>,
}

impl Divergence {
    /// Compares two answers. Returns `None` if they are equal. The caller sets `logit_gap`.
    ///
    /// # Panics
    /// If the first difference is at a position that does not fit into a `u32`.
    #[must_use]
    pub fn between(plain: &[u32], speculative: &[u32]) -> Option<Self> {
        if plain == speculative {
            return None;
        }
        let position = plain
            .iter()
            .zip(speculative)
            .take_while(|(plain, speculative)| plain == speculative)
            .count();
        Some(Self {
            position: u32::try_from(position).expect("answers are short"),
            plain_token: plain.get(position).copied(),
            speculative_token: speculative.get(position).copied(),
            logit_gap: None,
        })
    }
}

/// One prompt, answered by both arms.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptRecord {
    /// [`SCHEMA_VERSION`] of the program that wrote the line.
    pub schema_version: u32,
    /// Id of the prompt in its task; unique in the cell.
    pub prompt_id: String,
    /// Index of the prompt in the task, counted from 0 over all shards.
    pub index: u64,
    /// Number of prompt tokens, including image places.
    pub prompt_tokens: u32,
    /// Number of prompt tokens that stand for images; 0 without an image.
    pub image_tokens: u32,
    /// Sampling seed of both arms.
    pub seed: u64,
    /// Time at which the record was written.
    pub finished_at: Timestamp,
    /// Largest resident set of the process so far, in bytes; absent if the system does not report
    /// it.
    pub peak_rss_bytes: Option<u64>,
    /// Answer of plain decoding.
    pub plain: ArmRecord,
    /// Answer of the cell's method.
    pub speculative: ArmRecord,
    /// The first token at which the arms differ; absent if they are identical.
    pub first_divergence: Option<Divergence>,
}

impl PromptRecord {
    /// Returns whether both arms produced the same tokens.
    #[must_use]
    pub fn identical(&self) -> bool {
        self.first_divergence.is_none()
    }

    /// Checks what the types do not ensure: version, times, cycles, and that the divergence matches
    /// the tokens.
    ///
    /// # Errors
    /// Returns [`ReportError::Record`] with the invalid field, without a path.
    pub(crate) fn validate(&self) -> Result<()> {
        let fault = |field, found: String, expected: String| {
            Err(ReportError::Record {
                path: PathBuf::new(),
                line: 0,
                prompt_id: self.prompt_id.clone(),
                field,
                found,
                expected,
            })
        };
        if self.prompt_id.is_empty() {
            return fault("prompt_id", "empty".into(), "a name".into());
        }
        if self.schema_version != SCHEMA_VERSION {
            let expected = SCHEMA_VERSION.to_string();
            return fault("schema_version", self.schema_version.to_string(), expected);
        }
        for arm in [&self.plain, &self.speculative] {
            if !arm.times_ms.all_finite() {
                let found = format!("{:?}", arm.times_ms);
                return fault("times_ms", found, "finite and not negative".into());
            }
            let cycles = arm.accepted_per_cycle.len();
            if arm.nodes_per_cycle.len() != cycles {
                let found = format!("{} cycles", arm.nodes_per_cycle.len());
                return fault("nodes_per_cycle", found, format!("{cycles} cycles"));
            }
            let mut pairs = arm.accepted_per_cycle.iter().zip(&arm.nodes_per_cycle);
            if let Some((accepted, nodes)) = pairs.find(|(accepted, nodes)| accepted >= nodes) {
                let expected = format!("less than the {nodes} nodes of its cycle");
                return fault("accepted_per_cycle", accepted.to_string(), expected);
            }
        }
        let expected = Divergence::between(&self.plain.token_ids, &self.speculative.token_ids);
        let position = |divergence: Option<Divergence>| divergence.map(|found| found.position);
        if position(self.first_divergence) != position(expected) {
            return fault(
                "first_divergence",
                format!("{:?}", position(self.first_divergence)),
                format!("{:?}", position(expected)),
            );
        }
        Ok(())
    }
}

/// A prompt that could not be answered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailureRecord {
    /// Id of the prompt in its task.
    pub prompt_id: String,
    /// The error, including its causes.
    pub message: String,
}

/// One line of `records.jsonl`.
///
/// A failure is written as `{"schema_version":1,"failure":{..}}`. A failed prompt may be retried; a
/// later record replaces its failure.
#[derive(Clone, PartialEq, Debug)]
pub enum RecordLine {
    /// A prompt that was answered.
    Record(Box<PromptRecord>),
    /// A prompt that could not be answered.
    Failure(FailureRecord),
}

impl RecordLine {
    /// Returns the id of the prompt of this line.
    #[must_use]
    pub fn prompt_id(&self) -> &str {
        match self {
            Self::Record(record) => &record.prompt_id,
            Self::Failure(failure) => &failure.prompt_id,
        }
    }
}

/// Serialised form of a failure.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FailureLine {
    pub(super) schema_version: u32,
    pub(super) failure: FailureRecord,
}
