//! Constraint that tracks an answer's position in its grammar.

use std::fmt;

use llguidance::Matcher;
use llguidance::toktrie::{SimpleVob, TokEnv};
use vispec_core::{BoxError, Constraint, TokenId};

use crate::error::{GrammarError, reason};

/// Follows one answer through its grammar.
///
/// At the end of the grammar, only tokens that end the sequence are allowed.
pub struct GrammarConstraint {
    matcher: Matcher,
    vocabulary: TokEnv,
    /// Number of tokens since the one that ended the sequence, including it.
    ended: usize,
    /// Forced tokens, if computed since the last token.
    forced: Option<Vec<TokenId>>,
}

impl fmt::Debug for GrammarConstraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GrammarConstraint")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

impl GrammarConstraint {
    pub(crate) fn new(matcher: Matcher, vocabulary: TokEnv) -> Self {
        Self {
            matcher,
            vocabulary,
            ended: 0,
            forced: None,
        }
    }

    fn ends(&self, token: TokenId) -> bool {
        self.vocabulary.tok_trie().eos_tokens().contains(&token)
    }

    /// Returns the tokens of the forced text as the tokenizer splits it; no others are allowed.
    fn must_come(&mut self) -> &[TokenId] {
        let matcher = &mut self.matcher;
        self.forced
            .get_or_insert_with(|| matcher.compute_ff_tokens())
    }
}

impl Constraint for GrammarConstraint {
    fn mask(&mut self, logits: &mut [f32]) -> Result<(), BoxError> {
        if self.ended > 0 {
            return Ok(());
        }
        let allowed = self.matcher.compute_mask_or_eos().map_err(too_complex)?;
        exclude(logits, &allowed);
        Ok(())
    }

    fn allows(&mut self, token: TokenId) -> Result<bool, BoxError> {
        if self.ended > 0 {
            return Ok(false);
        }
        if self.matcher.is_stopped() {
            return Ok(self.ends(token));
        }
        if let Some(&forced) = self.must_come().first() {
            return Ok(token == forced);
        }
        if self.ends(token) {
            return Ok(self.matcher.is_accepting().map_err(too_complex)?);
        }
        let valid = self.matcher.validate_tokens(&[token]);
        Ok(valid.map_err(too_complex)? == 1)
    }

    fn forced(&mut self) -> Result<Vec<TokenId>, BoxError> {
        if self.ended > 0 || self.matcher.is_stopped() {
            return Ok(Vec::new());
        }
        if self.vocabulary.tokenize_is_canonical() {
            return Ok(self.must_come().to_vec());
        }
        // Any tokens that spell this text are allowed; the longest ones are the most likely.
        let text = self.matcher.compute_ff_bytes();
        Ok(self.vocabulary.tokenize_bytes(&text))
    }

    fn advance(&mut self, token: TokenId) -> Result<(), BoxError> {
        self.forced = None;
        if self.ended > 0 || self.ends(token) {
            self.ended += 1;
            return Ok(());
        }
        Ok(self.matcher.consume_token(token).map_err(too_complex)?)
    }

    fn retreat(&mut self) -> Result<(), BoxError> {
        self.forced = None;
        if self.ended > 0 {
            self.ended -= 1;
            return Ok(());
        }
        Ok(self.matcher.rollback(1).map_err(too_complex)?)
    }
}

fn too_complex(error: impl ToString) -> GrammarError {
    GrammarError::TooComplex {
        reason: reason(error),
    }
}

/// Sets the logits of tokens that are not `allowed` to negative infinity.
fn exclude(logits: &mut [f32], allowed: &SimpleVob) {
    let words = allowed.as_slice();
    for (index, logits) in logits.chunks_mut(32).enumerate() {
        match words.get(index).copied().unwrap_or(0) {
            0 => logits.fill(f32::NEG_INFINITY),
            u32::MAX => {}
            word => {
                for (bit, logit) in logits.iter_mut().enumerate() {
                    if word & (1 << bit) == 0 {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_allowed_stays() {
        let mut allowed = SimpleVob::alloc(70);
        for token in [0, 33, 69] {
            allowed.allow_token(token);
        }
        // The target has more tokens than the tokenizer does.
        let mut logits = vec![1.0; 120];
        exclude(&mut logits, &allowed);
        let stay = logits.iter().enumerate();
        let stay = stay.filter(|(_, logit)| logit.is_finite());
        assert_eq!(Vec::from_iter(stay.map(|(token, _)| token)), [0, 33, 69]);
    }
}
