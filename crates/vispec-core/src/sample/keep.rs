//! Top-p and top-k: selection of the candidate tokens of a row.

use std::cmp::Ordering;
use std::num::NonZeroUsize;

use super::row::{BLOCK, BlockMaxima, Weights};

/// A token that remains a candidate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) id: u32,
    logit: f32,
    /// Probability up to a common factor.
    pub(super) weight: f32,
}

/// Fills `kept` with the tokens that remain after top-p and then top-k, in token-id order.
pub(super) fn keep(
    logits: &[f32],
    weights: Weights,
    (top_p, top_k): (Option<f32>, Option<NonZeroUsize>),
    maxima: &mut BlockMaxima,
    kept: &mut Vec<Kept>,
) {
    match (top_p, top_k) {
        (Some(top_p), _) => keep_top_p(logits, weights, top_p, maxima, kept),
        (None, Some(top_k)) => {
            let threshold = maxima.kth_largest(top_k.get());
            collect(logits, weights, threshold, maxima, kept);
            kept.sort_unstable_by(by_logit);
        }
        (None, None) => collect(logits, weights, f32::NEG_INFINITY, maxima, kept),
    }
    if let Some(top_k) = top_k
        && let Some(&edge) = kept.get(top_k.get() - 1)
    {
        let n_kept = kept.partition_point(|token| token.logit >= edge.logit);
        kept.truncate(n_kept);
    }
    kept.sort_unstable_by_key(|token| token.id);
}

/// Keeps the most probable tokens, most probable first, up to and including the token with which
/// their sum reaches `top_p`.
fn keep_top_p(
    logits: &[f32],
    weights: Weights,
    top_p: f32,
    maxima: &BlockMaxima,
    kept: &mut Vec<Kept>,
) {
    let wanted = f64::from(top_p) * weights.sum(logits);
    // A few tokens nearly always carry the mass; sorting all tokens is the last resort.
    for halvings in [6.0, 12.0, 24.0, f32::INFINITY] {
        let threshold = weights.logit_below(halvings);
        collect(logits, weights, threshold, maxima, kept);
        let mass: f64 = kept.iter().map(|token| f64::from(token.weight)).sum();
        if mass >= wanted {
            break;
        }
    }
    kept.sort_unstable_by(by_logit);
    let mut mass = 0.0;
    let mut n_kept = 0;
    for token in &*kept {
        if n_kept > 0 && mass >= wanted {
            break;
        }
        mass += f64::from(token.weight);
        n_kept += 1;
    }
    kept.truncate(n_kept);
}

/// Collects the tokens with a non-zero weight and a logit of at least `threshold`.
fn collect(
    logits: &[f32],
    weights: Weights,
    threshold: f32,
    maxima: &BlockMaxima,
    kept: &mut Vec<Kept>,
) {
    kept.clear();
    for (block_idx, block) in logits.chunks(BLOCK).enumerate() {
        if maxima.of_block(block_idx) < threshold {
            continue;
        }
        for (offset, &logit) in block.iter().enumerate() {
            if logit < threshold {
                continue;
            }
            let weight = weights.of(logit);
            if weight > 0.0 {
                let id = u32::try_from(block_idx * BLOCK + offset).expect("ids fit 32 bits");
                kept.push(Kept { id, logit, weight });
            }
        }
    }
}

fn by_logit(a: &Kept, b: &Kept) -> Ordering {
    b.logit
        .partial_cmp(&a.logit)
        .unwrap_or(Ordering::Equal)
        .then(a.id.cmp(&b.id))
}
