//! One pass of a target over the rows of several sequences.
//!
//! The rows of all segments are concatenated. Layers process them as one matrix, and only attention
//! distinguishes the sequences. On the CPU a row does not depend on the rows beside it, so a
//! sequence gets the same results as in a separate pass.

use std::num::NonZeroUsize;
use std::ops::Range;

use burn::tensor::{Int, Tensor, TensorData, s};
use vispec_core::{
    BoxError, KvCache as _, NodeId, OutputOf, PassInput, Prompt as _, Segment, TargetModel,
    TargetOutput, TokenTree,
};

use crate::error::ModelError;
use crate::features::{FeatureSpec, PassStates};
use crate::logits::DeviceLogits;
use crate::nn::{
    AttentionPlan, LayerRows, RotaryTable, StackInput, StackSegment, join_rows, pad_rows,
    slice_rows,
};
use crate::prompt::EncodedPrompt;
use crate::row_picks::WantedRows;
use crate::target::VlmTarget;
use crate::vlm_cache::VlmCache;

/// The inputs of a segment to the pass.
struct Rows {
    /// `[rows, hidden]`
    embeds: Tensor<2>,
    rotary: RotaryTable,
    /// Vectors that are added after the first layers.
    later: LayerRows,
    plan: AttentionPlan,
    role: Role,
    wanted: WantedRows,
}

/// How a segment's hidden states are used.
#[derive(Clone, Copy)]
enum Role {
    /// Rows of a tree, with logits for each.
    Tree,
    /// Rows of a prompt before its end, with logits for the last.
    PromptPart { rope_delta: i64 },
    /// The last rows of a prompt, with logits for the last and features of the whole prompt.
    PromptEnd { rope_delta: i64 },
}

/// A segment in the pass.
struct Part<'s, 'a> {
    /// Index of the segment's result.
    place: usize,
    segment: &'s mut Segment<'a, VlmTarget>,
    plan: AttentionPlan,
    role: Role,
    /// Rows whose logits are needed; they are the last rows of the segment.
    wanted: WantedRows,
}

type Output = OutputOf<VlmTarget>;

impl TargetModel for VlmTarget {
    type Prompt = EncodedPrompt;
    type Cache = VlmCache;
    /// `[rows, states * hidden]`: the states of [`VlmTarget::features`] side by side.
    type Features = Tensor<2>;
    type Logits = DeviceLogits;

    fn vocab_size(&self) -> usize {
        self.text().head().n_outputs()
    }

    fn context_len(&self) -> usize {
        self.context_len
    }

    fn new_cache(&self) -> Result<VlmCache, BoxError> {
        Ok(VlmCache::new(self.new_kv(), self.features().clone()))
    }

    fn read(
        &self,
        input: PassInput<'_, EncodedPrompt>,
        cache: &mut VlmCache,
    ) -> Result<OutputOf<Self>, BoxError> {
        let segment = Segment {
            input,
            cache,
            picks: None,
        };
        let result = self.forward(&mut [segment]).pop();
        result.unwrap_or_else(|| Err("the pass returned no result".into()))
    }

    fn forward(&self, segments: &mut [Segment<'_, Self>]) -> Vec<Result<OutputOf<Self>, BoxError>> {
        run(self, segments)
    }

    fn gather_features(&self, features: Tensor<2>, path: &[NodeId]) -> Result<Tensor<2>, BoxError> {
        // Always copy, since the features may be a view into those of a large pass.
        let rows: Vec<i64> = path.iter().map(|node| row_position(node.index())).collect();
        let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [path.len()]), self.device());
        Ok(features.select(0, rows))
    }
}

fn run(
    target: &VlmTarget,
    segments: &mut [Segment<'_, VlmTarget>],
) -> Vec<Result<Output, BoxError>> {
    let Some(room) = target.padded_rows() else {
        return run_together(target, segments);
    };
    let mut results = Vec::with_capacity(segments.len());
    let mut rest = segments;
    while !rest.is_empty() {
        let n_fit = n_that_fit(rest, room.get());
        let (now, later) = rest.split_at_mut(n_fit);
        results.extend(run_together(target, now));
        rest = later;
    }
    results
}

/// Returns how many of the segments share a padded pass. A prompt is alone; trees share a pass as
/// far as there is room.
fn n_that_fit(segments: &[Segment<'_, VlmTarget>], room: usize) -> usize {
    let mut left = room;
    let fits = segments.iter().take_while(|segment| {
        let is_tree = matches!(segment.input, PassInput::Tree(_));
        let rest = left.checked_sub(segment.n_rows());
        left = rest.unwrap_or(0);
        is_tree && rest.is_some()
    });
    fits.count().max(1)
}

/// Runs one pass over all segments.
fn run_together(
    target: &VlmTarget,
    segments: &mut [Segment<'_, VlmTarget>],
) -> Vec<Result<Output, BoxError>> {
    let n_rows = segments.iter().map(Segment::n_rows).sum();
    target.stack().step(n_rows, target.vocab_size(), || {
        let mut results = Vec::with_capacity(segments.len());
        let mut parts = Vec::with_capacity(segments.len());
        let (mut embeds, mut rotary) = (Vec::new(), None);
        let (mut later, mut start) = (LayerRows::default(), 0);
        for (place, segment) in segments.iter_mut().enumerate() {
            match prepare(target, segment) {
                Ok(rows) => {
                    results.push(Err("the pass returned no result".into()));
                    later.append(rows.later, start);
                    start += rows.plan.n_rows();
                    embeds.push(rows.embeds);
                    rotary = Some(match rotary {
                        Some(before) => RotaryTable::followed_by(before, &rows.rotary),
                        None => rows.rotary,
                    });
                    parts.push(Part {
                        place,
                        segment,
                        plan: rows.plan,
                        role: rows.role,
                        wanted: rows.wanted,
                    });
                }
                Err(error) => results.push(Err(error)),
            }
        }
        if let Some(rotary) = rotary {
            let input = StackInput {
                later,
                ..join_rows(embeds).into()
            };
            for (place, output) in pass(target, input, &rotary, &mut parts) {
                results[place] = Ok(output);
            }
        }
        results
    })
}

/// Does everything that can fail before any cache is changed.
fn prepare(target: &VlmTarget, segment: &Segment<'_, VlmTarget>) -> Result<Rows, BoxError> {
    let (found, expected) = (segment.cache.spec(), target.features());
    if !found.covers(expected) {
        return Err(other_features(found, expected).into());
    }
    match segment.input {
        PassInput::Prompt { prompt, end } => Ok(prompt_rows(target, (prompt, end), segment)?),
        PassInput::Tree(tree) => Ok(tree_rows(target, tree, segment)?),
    }
}

pub(crate) fn other_features(found: &FeatureSpec, expected: &FeatureSpec) -> ModelError {
    ModelError::OtherFeatures {
        found: found.to_string(),
        expected: expected.to_string(),
    }
}

fn prompt_rows(
    target: &VlmTarget,
    (prompt, end): (&EncodedPrompt, usize),
    segment: &Segment<'_, VlmTarget>,
) -> Result<Rows, ModelError> {
    let cache = &*segment.cache;
    let n_tokens = prompt.token_ids().len();
    let cached = cache.len();
    if cached >= end || end > n_tokens {
        return Err(ModelError::PromptRange {
            end,
            cached,
            n_tokens,
        });
    }
    let [found, width] = prompt.embeds().dims();
    let axes = prompt.positions().axes();
    if (found, width) != (n_tokens, target.hidden()) || axes.iter().any(|a| a.len() != n_tokens) {
        return Err(ModelError::PromptShape {
            embeds: [found, width],
            positions: axes[0].len(),
            expected: [n_tokens, target.hidden()],
        });
    }
    let known = cache.features().len();
    if known != cached {
        return Err(ModelError::UnknownFeatures { cached, known });
    }
    let rope_delta = prompt.rope_delta();
    Ok(Rows {
        embeds: prompt.embeds().clone().slice(s![cached..end, ..]),
        rotary: target.prompt_rotary(axes.map(|axis| &axis[cached..end])),
        later: prompt.layer_rows(cached..end),
        plan: AttentionPlan::Causal {
            prefix: cached,
            rows: end - cached,
        },
        role: if end < n_tokens {
            Role::PromptPart { rope_delta }
        } else {
            Role::PromptEnd { rope_delta }
        },
        wanted: WantedRows::new(segment.picks, [end]),
    })
}

fn tree_rows(
    target: &VlmTarget,
    tree: &TokenTree,
    segment: &Segment<'_, VlmTarget>,
) -> Result<Rows, ModelError> {
    let cache = &*segment.cache;
    if let Some(rows) = target.padded_rows()
        && tree.n_nodes() > rows.get()
    {
        return Err(ModelError::PaddedTree {
            nodes: tree.n_nodes(),
            rows: rows.get(),
        });
    }
    let embedding = target.text().embedding();
    let embeds = embedding.forward(tree.tokens(), target.precision().compute)?;
    let base = row_position(cache.len()) + cache.position_delta;
    let positions: Vec<i64> = tree.depths().iter().map(|&d| base + i64::from(d)).collect();
    let paths: Vec<Vec<usize>> = tree
        .nodes()
        .map(|node| tree.path(node).into_iter().map(NodeId::index).collect())
        .collect();
    Ok(Rows {
        embeds,
        rotary: target.rotary(&positions),
        later: LayerRows::default(),
        plan: AttentionPlan::tree(cache.len(), paths.iter().map(Vec::as_slice)),
        role: Role::Tree,
        // The token picked from a node comes after it.
        wanted: WantedRows::new(
            segment.picks,
            tree.depths()
                .iter()
                .map(|&depth| cache.len() + depth as usize + 1),
        ),
    })
}

/// Runs the pass over the rows of all parts; returns each output with its index.
fn pass(
    target: &VlmTarget,
    input: StackInput,
    rotary: &RotaryTable,
    parts: &mut [Part<'_, '_>],
) -> Vec<(usize, Output)> {
    let mut wanted: Vec<usize> = Vec::new();
    for part in &*parts {
        wanted.extend(part.segment.cache.spec().residual_numbers());
    }
    let segments = parts.iter_mut().map(|part| StackSegment {
        plan: &part.plan,
        cache: &mut part.segment.cache.kv,
    });
    let mut segments: Vec<_> = segments.collect();
    let stack = target.stack();
    let stream = stack.forward_noting(input, rotary, &mut segments, &wanted);
    // In a padded pass, norm and head run on the same number of rows as the layers.
    let least = target.padded_rows().map_or(0, NonZeroUsize::get);
    let [n_rows, _] = stream.last.dims();
    let last = target.text().finish(pad_rows(stream.last, least));
    let states = PassStates {
        last: slice_rows(&last, 0..n_rows),
        residual: stream.noted,
    };
    let scored = scored_rows(&states.last, parts);
    let [n_scored, _] = scored.dims();
    let logits = target.text().head().forward(pad_rows(scored, least));
    let logits = slice_rows(&logits, 0..n_scored);
    let wanted = parts
        .iter_mut()
        .map(|part| std::mem::take(&mut part.wanted));
    let wanted: Vec<WantedRows> = wanted.collect();
    let logits = DeviceLogits::of_sequences(logits, wanted);
    let rows: Vec<_> = ranges(parts).collect();
    let parts = parts.iter_mut().zip(rows).zip(logits);
    parts
        .map(|((part, rows), logits)| {
            let features = part.note(&states, rows, target.features());
            (part.place, TargetOutput { logits, features })
        })
        .collect()
}

/// Returns the rows of each part in the pass.
fn ranges(parts: &[Part<'_, '_>]) -> impl Iterator<Item = Range<usize>> {
    parts.iter().scan(0, |end, part| {
        let start = *end;
        *end += part.plan.n_rows();
        Some(start..*end)
    })
}

/// Returns the rows of `hidden` whose logits are needed.
fn scored_rows(hidden: &Tensor<2>, parts: &[Part<'_, '_>]) -> Tensor<2> {
    let mut wanted: Vec<Range<usize>> = Vec::new();
    for (part, rows) in parts.iter().zip(ranges(parts)) {
        let rows = rows.end - part.wanted.len()..rows.end;
        match wanted.last_mut() {
            Some(last) if last.end == rows.start => last.end = rows.end,
            _ => wanted.push(rows),
        }
    }
    let wanted = wanted.into_iter().map(|rows| slice_rows(hidden, rows));
    join_rows(wanted.collect())
}

impl Part<'_, '_> {
    /// Records the hidden states of the rows in the cache and returns the features that are
    /// `wanted`.
    fn note(&mut self, states: &PassStates, rows: Range<usize>, wanted: &FeatureSpec) -> Tensor<2> {
        let cache = &mut *self.segment.cache;
        let spec = cache.spec().clone();
        let features = states.features(&spec, rows);
        let features = match self.role {
            Role::Tree => {
                cache.note_tree(&features);
                features
            }
            Role::PromptPart { rope_delta } => {
                cache.position_delta = rope_delta;
                cache.note_part(&features);
                features
            }
            Role::PromptEnd { rope_delta } => {
                cache.position_delta = rope_delta;
                cache.note_end(features)
            }
        };
        match spec.select(&features, wanted) {
            Some(features) => features,
            None => unreachable!("caches that do not cover {wanted} are refused"),
        }
    }
}

fn row_position(row: usize) -> i64 {
    i64::try_from(row).unwrap_or(i64::MAX)
}
