//! The vocabulary of a draft that has its own output head.

use vispec_core::TokenId;

use super::config::Eagle3Config;
use crate::error::ModelError;
use crate::weights::{Checkpoint, Weights};

/// Tensor with the offset from each draft id to the target's token id.
const TO_TARGET: &str = "d2t";
/// Tensor that marks which of the target's token ids the draft has.
const TO_DRAFT: &str = "t2d";

/// Returns the target's token for each draft id; `None` if both use the same ids.
///
/// # Errors
/// [`ModelError::WeightValue`] if a token lies outside the target's vocabulary or occurs twice, or
/// if the two tables disagree; any error from reading them.
pub(in crate::draft) fn own_tokens(
    checkpoint: &Checkpoint,
    weights: &Weights<'_>,
    config: &Eagle3Config,
) -> Result<Option<Vec<TokenId>>, ModelError> {
    let (vocab_size, n_draft) = (config.vocab_size, config.draft_vocab_size);
    if n_draft == vocab_size && !weights.contains(TO_TARGET) {
        weights.skip(TO_DRAFT);
        return Ok(None);
    }
    let Some(offsets) = weights.integers(TO_TARGET, n_draft) else {
        // The missing tensor is reported later, together with all others that are missing.
        return Ok(None);
    };
    let wrong = |tensor: &str, reason: String| ModelError::WeightValue {
        path: checkpoint.path_of(tensor),
        tensor: tensor.to_owned(),
        reason,
    };
    let mut is_draft = vec![false; vocab_size];
    let mut tokens = Vec::with_capacity(n_draft);
    for (id, offset) in (0i64..).zip(offsets) {
        let token = id.checked_add(offset);
        let place = token.and_then(|token| usize::try_from(token).ok());
        let place = place.filter(|&place| place < vocab_size);
        let (Some(place), Some(token)) = (place, place.and_then(|p| TokenId::try_from(p).ok()))
        else {
            let reason = format!(
                "draft id {id} with the offset {offset} lies outside the target's vocabulary of \
                 {vocab_size}"
            );
            return Err(wrong(TO_TARGET, reason));
        };
        if std::mem::replace(&mut is_draft[place], true) {
            return Err(wrong(TO_TARGET, format!("token id {token} occurs twice")));
        }
        tokens.push(token);
    }
    if weights.contains(TO_DRAFT)
        && let Some(listed) = weights.integers(TO_DRAFT, vocab_size)
    {
        let differs = listed.iter().zip(&is_draft);
        let mut differs = differs.map(|(listed, is_draft)| (*listed != 0) != *is_draft);
        if let Some(token) = differs.position(|differs| differs) {
            let reason = format!("it disagrees with {TO_TARGET} about token id {token}");
            return Err(wrong(TO_DRAFT, reason));
        }
    }
    Ok(Some(tokens))
}
