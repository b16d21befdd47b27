//! The logit gap of two tokens where plain and speculative answers diverge.

use vispec_core::{KvCache, NodeId, TargetLogits, TargetModel, TokenId, TokenTree};
use vispec_models::{EncodedPrompt, VlmTarget};
use vispec_report::record::Divergence;

use examples_answer::failure::Failure;

/// Compares two answers. If they differ, reads the prompt and the tokens before the difference
/// again, one at a time like plain decoding, and compares the logits of both tokens.
///
/// # Errors
/// Any error of the target.
pub(super) fn compare(
    target: &VlmTarget,
    prompt: &EncodedPrompt,
    plain: &[TokenId],
    speculative: &[TokenId],
) -> Result<Option<Divergence>, Failure> {
    let Some(divergence) = Divergence::between(plain, speculative) else {
        return Ok(None);
    };
    let logit_gap = match (divergence.plain_token, divergence.speculative_token) {
        (Some(left), Some(right)) => {
            let before = &plain[..divergence.position as usize];
            let row = plain_logits(target, prompt, before)?;
            Some(row[left as usize] - row[right as usize])
        }
        // One answer is a prefix of the other.
        _ => None,
    };
    Ok(Some(Divergence {
        logit_gap,
        ..divergence
    }))
}

/// Returns the logits `[vocab]` of the token that follows `answer`.
fn plain_logits(
    target: &VlmTarget,
    prompt: &EncodedPrompt,
    answer: &[TokenId],
) -> Result<Vec<f32>, Failure> {
    let boxed = |error: vispec_core::BoxError| anyhow::anyhow!(error);
    let mut cache = target.new_cache().map_err(boxed)?;
    let mut output = target.prefill(prompt, &mut cache).map_err(boxed)?;
    for &token in answer {
        let base = cache.len();
        output = target
            .verify(&TokenTree::new(token), &mut cache)
            .map_err(boxed)?;
        cache.keep_path(base, &[NodeId::ROOT]);
    }
    Ok(output.logits.read_row(0)?.to_vec())
}
