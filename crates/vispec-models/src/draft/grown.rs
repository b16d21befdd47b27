//! Token trees that grow on the device: the host launches the passes of all levels and reads back
//! once.
//!
//! If the host grew a tree level by level, it would have to read the candidates of each level
//! before launching the next one, and the device would wait in the meantime. Here the device itself
//! chooses the nodes to expand and returns its choices with the candidates. The choices affect only
//! the speed, never the answer.

use burn::tensor::{DType, Int, Tensor};
use vispec_core::{BoxError, DraftStep, GrownLevel, TopK};

use super::neural::{NeuralDraft, NeuralDraftSession, NotBegun};
use super::neural_pass;
use super::vocab::AddedTokens;
use crate::logits::{check_ranked, ranked_on_device, read_numbers};
use crate::nn::{AttentionPlan, StackSegment};

/// Candidates for the next tokens of some rows, on the device.
struct Candidates {
    /// Log-probabilities, descending, `[rows, k]`.
    log_probs: Tensor<2>,
    /// Their columns in the head, `[rows, k]`.
    columns: Tensor<2, Int>,
}

impl Candidates {
    /// Ranks the `k` best candidates after the outputs `[rows, hidden]`.
    fn after(draft: &NeuralDraft, output: Tensor<2>, added: &AddedTokens, k: usize) -> Self {
        let logits = draft.head.score(draft.network.read_out(output), added);
        let [_, n_columns] = logits.dims();
        let (log_probs, columns) = ranked_on_device(logits, k.min(n_columns));
        Self { log_probs, columns }
    }

    fn dims(&self) -> [usize; 2] {
        self.log_probs.dims()
    }

    /// Returns the log-probabilities, clamped to 0 so that a child never scores above its parent.
    fn scores(&self) -> Tensor<2> {
        self.log_probs.clone().clamp_max(0.0)
    }
}

/// A level before it is read back: the places that were expanded and the candidates that were
/// found.
struct Level {
    expanded: Option<Tensor<1, Int>>,
    found: Candidates,
}

/// Implements [`vispec_core::DraftModel::grow`].
pub(super) fn grow(
    session: &mut NeuralDraftSession,
    step: DraftStep<'_, Tensor<2>, Tensor<2>>,
    n_levels: usize,
    top_k: usize,
) -> Result<Vec<GrownLevel>, BoxError> {
    let mut hidden = neural_pass::commit(session, step)?;
    let NeuralDraftSession {
        draft,
        state,
        added,
        ..
    } = session;
    let state = state.as_mut().ok_or(NotBegun)?;
    let tokens = draft.head.tokens(added, &hidden.device());
    let found = Candidates::after(draft, hidden.clone(), added, top_k);
    let mut scores = found.scores();
    let mut paths: Option<Tensor<2, Int>> = None;
    let mut n_rows = 0;
    let mut levels = vec![Level {
        expanded: None,
        found,
    }];
    for level in 0..n_levels.saturating_sub(1) {
        let Some(Level { found, .. }) = levels.last() else {
            break;
        };
        let [rows, k] = found.dims();
        let width = top_k.min(rows * k);
        let (best, places) = scores.reshape([1, rows * k]).topk_with_indices(width, 1);
        let places = places.reshape([width]);
        let parents = places.clone().div_scalar(number(k));
        let columns = found.columns.clone().reshape([rows * k]);
        let columns = columns.select(0, places.clone());
        let ids = match &tokens {
            None => columns,
            Some(tokens) => tokens.clone().select(0, columns),
        };
        let embeds = draft.embedding.lookup(ids, hidden.dtype());
        hidden = hidden.select(0, parents.clone());

        let first = state.committed_rows + n_rows;
        let own = Tensor::<1, Int>::arange(number(first)..number(first + width), &hidden.device());
        let own = own.reshape([width, 1]);
        let seen = match paths.take() {
            None => own,
            Some(paths) => Tensor::cat(vec![paths.select(0, parents), own], 1),
        };
        let plan = AttentionPlan::unknown_tree(state.committed_rows, seen.clone());
        paths = Some(seen);
        n_rows += width;

        let positions = vec![state.position(level); width];
        let images = [(width, state.image.as_ref())];
        let inputs = draft.network.fuse(embeds, hidden, &images);
        let segment = StackSegment {
            plan: &plan,
            cache: &mut state.cache,
        };
        hidden = draft.decode(inputs, &positions, &mut [segment]);
        let found = Candidates::after(draft, hidden.clone(), added, top_k);
        scores = found.scores() + best.reshape([width, 1]);
        levels.push(Level {
            expanded: Some(places),
            found,
        });
    }
    read(draft, added, levels)
}

fn number(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Reads all levels back in one transfer.
fn read(
    draft: &NeuralDraft,
    added: &AddedTokens,
    levels: Vec<Level>,
) -> Result<Vec<GrownLevel>, BoxError> {
    let dims: Vec<[usize; 2]> = levels.iter().map(|level| level.found.dims()).collect();
    // Columns and places are below 2^24, so f32 represents them exactly and one read suffices.
    let flat = levels.into_iter().flat_map(|Level { expanded, found }| {
        let [rows, k] = found.dims();
        let float = |ints: Tensor<1, Int>| Tensor::<1>::cast(ints.float(), DType::F32);
        let columns = float(found.columns.reshape([rows * k]));
        let log_probs = found.log_probs.reshape([rows * k]);
        expanded.map(float).into_iter().chain([columns, log_probs])
    });
    let read = read_numbers(Tensor::cat(flat.collect(), 0), "draft tokens")?;
    let mut rest = read.as_slice();
    let mut grown = Vec::with_capacity(dims.len());
    for (level, [rows, k]) in dims.into_iter().enumerate() {
        let n_expanded = if level == 0 { 0 } else { rows };
        let mut take = |n: usize| {
            rest.split_off(..n)
                .ok_or("fewer draft tokens than expected")
        };
        let expanded = take(n_expanded)?
            .iter()
            .map(|&place| index(place))
            .collect();
        let columns = take(rows * k)?;
        let log_probs = take(rows * k)?;
        for (row, log_probs) in log_probs.chunks_exact(k).enumerate() {
            check_ranked(log_probs, row)?;
        }
        let tokens = columns
            .iter()
            .map(|&column| draft.head.token(added, index(column)));
        grown.push(GrownLevel {
            expanded,
            top: TopK {
                k,
                tokens: tokens.collect(),
                log_probs: log_probs.to_vec(),
            },
        });
    }
    Ok(grown)
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers that were cast to float"
)]
fn index(number: f32) -> usize {
    number as usize
}

#[cfg(all(test, feature = "wgpu"))]
mod tests;
