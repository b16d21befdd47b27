//! One pass of a draft network over the rows of several sequences.
//!
//! On the CPU, the result of a row does not depend on the other rows of the pass, so each sequence
//! gets the same result as from a separate pass.

use burn::tensor::{Int, Tensor, TensorData};
use vispec_core::{Ask, Beam, BoxError, DraftPassOf, DraftStep, Expansion, KvCache as _, TokenId};

use super::neural::{NeuralDraft, NeuralDraftSession, NotBegun, State};
use super::positions::Position;
use super::vocab::{AddedTokens, Scoring};
use crate::nn::{AttentionPlan, StackSegment, join_rows, slice_rows};
use crate::target::VlmTarget;

type Pass<'a> = DraftPassOf<'a, VlmTarget, NeuralDraftSession>;
type Output = Result<Expansion<Tensor<2>>, BoxError>;

/// Implements [`vispec_core::DraftModel::forward`].
pub(super) fn run(passes: Vec<Pass<'_>>) -> Vec<Output> {
    let missing = || Err("a draft pass returned no result for a sequence".into());
    let mut results: Vec<Output> = passes.iter().map(|_| missing()).collect();
    let mut groups: Vec<(NeuralDraft, Vec<(usize, Pass<'_>)>)> = Vec::new();
    for (place, pass) in passes.into_iter().enumerate() {
        let draft = &pass.model.draft;
        let group = groups
            .iter_mut()
            .find(|(of_group, _)| of_group.shares_passes_with(draft));
        match group {
            Some((_, members)) => members.push((place, pass)),
            None => groups.push((draft.clone(), vec![(place, pass)])),
        }
    }
    for (draft, members) in groups {
        let n_rows = members.iter().map(|(_, pass)| n_rows(pass)).sum();
        for (place, result) in draft.step(n_rows, || run_group(&draft, members)) {
            results[place] = result;
        }
    }
    results
}

/// Returns the number of rows that a pass reads, including postponed ones.
fn n_rows(pass: &Pass<'_>) -> usize {
    match &pass.step {
        DraftStep::Commit { accepted, .. } => accepted.len() + 1 + pass.model.n_waiting(),
        DraftStep::Expand { beam, .. } => beam.tokens.len(),
    }
}

/// The part of a pass's input that belongs to one sequence.
struct Rows {
    /// Embeddings of tokens, `[rows, hidden]`.
    embeds: Tensor<2>,
    hidden: Hidden,
    positions: Vec<Position>,
    plan: AttentionPlan,
}

/// Hidden states that are paired with the tokens.
enum Hidden {
    /// The target's features, `[rows, states * target_hidden]`.
    OfTarget(Tensor<2>),
    /// Outputs of the draft, `[rows, hidden]`.
    Own(Tensor<2>),
}

/// A sequence in a pass.
struct Part<'a> {
    /// Its index among the results.
    place: usize,
    state: &'a mut State,
    last_output: &'a mut Option<Tensor<2>>,
    added: &'a AddedTokens,
    plan: AttentionPlan,
    kind: Kind,
    ask: Ask,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Only the last row is scored.
    Commit,
    /// All rows are scored.
    Expand,
}

/// The number of hidden states does not match the number of accepted tokens.
#[derive(Debug, thiserror::Error)]
#[error("a draft was given the hidden states of {found} tokens, expected {expected}")]
struct WrongFeatures {
    found: usize,
    expected: usize,
}

/// Like [`DraftModel::commit`](vispec_core::DraftModel::commit), but scores nothing and returns the
/// output `[1, hidden]` of the last position.
#[cfg(feature = "cube")]
pub(super) fn commit(
    session: &mut NeuralDraftSession,
    step: DraftStep<'_, Tensor<2>, Tensor<2>>,
) -> Result<Tensor<2>, BoxError> {
    let draft = session.draft.clone();
    let pass = Pass {
        model: session,
        step,
        ask: Ask::best(0),
    };
    let (failed, decoded) = decode_group(&draft, vec![(0, pass)]);
    let part = decoded.and_then(|(output, mut parts)| Some((output, parts.pop()?)));
    match (part, failed.into_iter().next()) {
        (Some((output, part)), _) => Ok(part.note(&output, 0).1),
        (None, Some((_, Err(error)))) => Err(error),
        (None, _) => Err("a draft pass returned no result".into()),
    }
}

/// Runs passes that use the same network and head as one pass.
fn run_group(draft: &NeuralDraft, passes: Vec<(usize, Pass<'_>)>) -> Vec<(usize, Output)> {
    let (mut results, decoded) = decode_group(draft, passes);
    if let Some((output, parts)) = decoded {
        results.extend(scored(draft, &output, parts));
    }
    results
}

/// The sequences that failed and, for the others, the outputs `[rows, hidden]` of the decoder.
type Decoded<'a> = (Vec<(usize, Output)>, Option<(Tensor<2>, Vec<Part<'a>>)>);

fn decode_group<'a>(draft: &NeuralDraft, passes: Vec<(usize, Pass<'a>)>) -> Decoded<'a> {
    let mut results = Vec::with_capacity(passes.len());
    let mut parts = Vec::with_capacity(passes.len());
    let (mut embeds, mut hidden, mut positions) = (Vec::new(), Vec::new(), Vec::new());
    for (place, pass) in passes {
        let kind = match &pass.step {
            DraftStep::Commit { .. } => Kind::Commit,
            DraftStep::Expand { .. } => Kind::Expand,
        };
        let prepared = prepare(pass.model, pass.step);
        let NeuralDraftSession {
            state,
            last_output,
            added,
            ..
        } = pass.model;
        match (prepared, state) {
            (Ok(rows), Some(state)) => {
                embeds.push(rows.embeds);
                hidden.push(rows.hidden);
                positions.extend(rows.positions);
                parts.push(Part {
                    place,
                    state,
                    last_output,
                    added,
                    plan: rows.plan,
                    kind,
                    ask: pass.ask,
                });
            }
            (Ok(_), None) => results.push((place, Err(NotBegun.into()))),
            (Err(error), _) => results.push((place, Err(error))),
        }
    }
    if parts.is_empty() {
        return (results, None);
    }
    let images = parts
        .iter()
        .map(|part| (part.plan.n_rows(), part.state.image.as_ref()));
    let images: Vec<_> = images.collect();
    let inputs = draft
        .network
        .fuse(join_rows(embeds), fused(draft, hidden), &images);
    let segments = parts.iter_mut().map(|part| StackSegment {
        plan: &part.plan,
        cache: &mut part.state.cache,
    });
    let output = draft.decode(inputs, &positions, &mut segments.collect::<Vec<_>>());
    (results, Some((output, parts)))
}

impl<'a> Part<'a> {
    /// Records the sequence's outputs, which begin at row `start` of `output`. Returns the
    /// sequence's request for candidates and the rows to score.
    fn note(self, output: &Tensor<2>, start: usize) -> ((usize, Ask, &'a AddedTokens), Tensor<2>) {
        let n_rows = self.plan.n_rows();
        let rows = start..start + n_rows;
        let hidden = match self.kind {
            Kind::Expand => slice_rows(output, rows),
            Kind::Commit => {
                self.state.committed_rows += n_rows;
                self.state.next_position += n_rows;
                *self.last_output = Some(slice_rows(output, rows.clone()));
                slice_rows(output, rows.end - 1..rows.end)
            }
        };
        ((self.place, self.ask, self.added), hidden)
    }
}

/// Joins all hidden states into one matrix `[rows, hidden]`, fusing those of the target in one
/// matrix product.
fn fused(draft: &NeuralDraft, hidden: Vec<Hidden>) -> Tensor<2> {
    let of_target = |hidden: &Hidden| match hidden {
        Hidden::OfTarget(features) => Some(features.clone()),
        Hidden::Own(_) => None,
    };
    let features: Vec<_> = hidden.iter().filter_map(of_target).collect();
    let all = if draft.network.reads_target_as_it_is() || features.is_empty() {
        None
    } else {
        Some(draft.network.fuse_target(join_rows(features)))
    };
    let mut start = 0;
    let rows = hidden.into_iter().map(|hidden| match (hidden, &all) {
        (Hidden::OfTarget(features), Some(all)) => {
            let rows = start..start + features.dims()[0];
            start = rows.end;
            slice_rows(all, rows)
        }
        (Hidden::OfTarget(rows) | Hidden::Own(rows), _) => rows,
    });
    join_rows(rows.collect())
}

/// Prepares the rows of a sequence. All steps that can fail happen here, before the decoder writes
/// to the cache.
fn prepare(
    session: &mut NeuralDraftSession,
    step: DraftStep<'_, Tensor<2>, Tensor<2>>,
) -> Result<Rows, BoxError> {
    match step {
        DraftStep::Commit {
            accepted,
            features,
            next,
        } => commit_rows(session, accepted, features, next),
        DraftStep::Expand { beam, parents } => expand_rows(session, beam, parents),
    }
}

fn commit_rows(
    session: &mut NeuralDraftSession,
    accepted: &[TokenId],
    features: Tensor<2>,
    next: TokenId,
) -> Result<Rows, BoxError> {
    session.catch_up()?;
    session.draft.reading.check(&features)?;
    let state = session.state.as_mut().ok_or(NotBegun)?;
    let [found, _] = features.dims();
    let expected = accepted.len() + 1;
    if found != expected {
        return Err(WrongFeatures { found, expected }.into());
    }
    let earlier = session.postponed.iter().flat_map(|(tokens, _)| tokens);
    let tokens: Vec<TokenId> = earlier.chain(accepted).chain([&next]).copied().collect();
    session
        .draft
        .head
        .add(&mut session.added, tokens.iter().copied());
    let embeds = session.draft.embedding.forward(&tokens, features.dtype())?;
    let earlier = session.postponed.drain(..).map(|(_, features)| features);
    let hidden = join_rows(earlier.chain([features]).collect());
    state.cache.truncate(state.committed_rows);
    let positions = (0..tokens.len()).map(|ahead| state.position(ahead));
    Ok(Rows {
        embeds,
        hidden: Hidden::OfTarget(hidden),
        positions: positions.collect(),
        plan: AttentionPlan::Causal {
            prefix: state.committed_rows,
            rows: tokens.len(),
        },
    })
}

fn expand_rows(
    session: &NeuralDraftSession,
    beam: &Beam,
    parents: &Tensor<2>,
) -> Result<Rows, BoxError> {
    let state = session.state.as_ref().ok_or(NotBegun)?;
    let n_rows = beam.tokens.len();
    let row = |&row: &usize| i64::try_from(row).unwrap_or(i64::MAX);
    let rows: Vec<i64> = beam.parent_rows.iter().map(row).collect();
    let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [n_rows]), &parents.device());
    let hidden = parents.clone().select(0, rows);
    let embeds = session
        .draft
        .embedding
        .forward(&beam.tokens, hidden.dtype())?;
    let paths = beam.paths.iter().map(Vec::as_slice);
    Ok(Rows {
        embeds,
        hidden: Hidden::Own(hidden),
        positions: vec![state.position(beam.level); n_rows],
        plan: AttentionPlan::tree(state.committed_rows, paths),
    })
}

/// Records the outputs `[rows, hidden]` and scores them.
fn scored(draft: &NeuralDraft, output: &Tensor<2>, parts: Vec<Part<'_>>) -> Vec<(usize, Output)> {
    let mut start = 0;
    let mut scored = Vec::with_capacity(parts.len());
    for part in parts {
        let n_rows = part.plan.n_rows();
        scored.push(part.note(output, start));
        start += n_rows;
    }
    let sequences = scored.iter().map(|((_, ask, added), hidden)| Scoring {
        rows: hidden.dims()[0],
        ask: *ask,
        added,
    });
    let sequences: Vec<_> = sequences.collect();
    let rows = scored.iter().map(|(_, hidden)| hidden.clone());
    let top = draft.top_k(join_rows(rows.collect()), &sequences);
    let scored = scored.into_iter().zip(top);
    scored
        .map(|(((place, ..), hidden), top)| (place, top.map(|top| Expansion { top, hidden })))
        .collect()
}
