//! Picks from logits that depend on the path, and what is said about the picks.

use std::sync::{Arc, Mutex, PoisonError};

use super::{AcceptanceRule, Verdict, descend};
use crate::sample::Said;
use crate::{
    KnownPicks, LogitAdjustments, LogitsError, PositionUniforms, Sampler, TargetLogits, TokenId,
    TokenTree, TopK,
};

/// What the target thought of a token that was picked, before adjustments and temperature.
#[derive(Clone, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PickedLogProbs {
    /// The token.
    pub token: TokenId,
    /// Natural logarithm of its probability.
    pub log_prob: f32,
    /// The most likely tokens with theirs, best first.
    pub top: Vec<(TokenId, f32)>,
}

/// Log-probabilities of picked tokens, one entry for each token in order. Clones share the entries.
#[derive(Clone, Debug)]
pub struct PickLog {
    n_top: usize,
    entries: Arc<Mutex<Vec<PickedLogProbs>>>,
}

impl PickLog {
    /// An empty log that notes the `n_top` most likely tokens beside each one picked.
    #[must_use]
    pub fn new(n_top: usize) -> Self {
        Self {
            n_top,
            entries: Arc::default(),
        }
    }

    /// Takes out all entries. There may be more than tokens emitted if the answer was cut.
    #[must_use]
    pub fn take(&self) -> Vec<PickedLogProbs> {
        std::mem::take(&mut *self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, token: TokenId, logits: &[f32]) -> Result<(), LogitsError> {
        let best = TopK::from_logits(logits, logits.len(), self.n_top.max(1))?;
        // The best token says what all of them are relative to.
        let (first, first_log_prob) = (best.tokens[0], best.log_probs[0]);
        let log_prob = logits[token as usize] - logits[first as usize] + first_log_prob;
        let entry = PickedLogProbs {
            token,
            log_prob,
            top: best.row(0).take(self.n_top).collect(),
        };
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.push(entry);
        Ok(())
    }
}

/// [`MatchPicks`](super::MatchPicks) from logits that are adjusted by what was said up to the node,
/// along each path of the tree on its own.
///
/// Every pick becomes a token of the answer, accepted or bonus, so that the rule knows the answer
/// without being told. The tokens are those of plain decoding with the same rule.
#[derive(Clone, Debug)]
pub struct AdjustedPicks {
    sampler: Sampler,
    uniforms: PositionUniforms,
    adjustments: LogitAdjustments,
    said: Said,
    log: Option<PickLog>,
    row: Vec<f32>,
}

impl AdjustedPicks {
    /// The rule for an answer to `prompt`.
    #[must_use]
    pub fn new(
        sampler: Sampler,
        uniforms: PositionUniforms,
        adjustments: LogitAdjustments,
        prompt: &[TokenId],
    ) -> Self {
        Self {
            sampler,
            uniforms,
            adjustments,
            said: Said::new(prompt),
            log: None,
            row: Vec::new(),
        }
    }

    /// The same rule, which notes the log-probabilities of what it picks.
    #[must_use]
    pub fn with_log(mut self, log: PickLog) -> Self {
        self.log = Some(log);
        self
    }

    fn pick(
        &mut self,
        logits: &mut dyn TargetLogits,
        row: usize,
        position: usize,
    ) -> Result<TokenId, LogitsError> {
        let original = logits.read_row(row)?;
        self.row.clear();
        self.row.extend_from_slice(original);
        self.said.adjust(&mut self.row, &self.adjustments);
        let pick = self.sampler.pick(&self.row, self.uniforms.at(position));
        let pick = pick.map_err(|error| error.at_row(row))?;
        if let Some(log) = &self.log {
            log.note(pick, original)
                .map_err(|error| error.at_row(row))?;
        }
        self.said.note(pick);
        Ok(pick)
    }
}

impl AcceptanceRule for AdjustedPicks {
    fn known_picks(&self) -> Option<KnownPicks> {
        KnownPicks::new(self.sampler, self.uniforms)
    }

    fn first(
        &mut self,
        logits: &mut dyn TargetLogits,
        position: usize,
    ) -> Result<TokenId, LogitsError> {
        self.pick(logits, 0, position)
    }

    fn accept(
        &mut self,
        tree: &TokenTree,
        logits: &mut dyn TargetLogits,
        position: usize,
    ) -> Result<Verdict, LogitsError> {
        descend(tree, position, |row, position| {
            self.pick(logits, row, position)
        })
    }
}
