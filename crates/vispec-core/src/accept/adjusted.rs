//! Picks from logits that depend on the path, with an optional log of their probabilities.

use std::sync::{Arc, Mutex, PoisonError};

use super::constraint::shape;
use super::{AcceptanceRule, Constraint, ForcedTokens, Verdict, descend};
use crate::sample::Said;
use crate::{
    BoxError, KnownPicks, LogitAdjustments, LogitsError, PositionUniforms, Sampler, TargetLogits,
    TokenId, TokenTree, TopK,
};

/// The target's log-probability of a picked token, before adjustments and temperature.
#[derive(Clone, PartialEq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct PickedLogProbs {
    /// The token.
    pub token: TokenId,
    /// Natural logarithm of the token's probability.
    pub log_prob: f32,
    /// The most likely tokens with their log-probabilities, best first.
    pub top: Vec<(TokenId, f32)>,
}

/// Log-probabilities of picked tokens, one entry per token, in order. Clones share the entries.
#[derive(Clone, Debug)]
pub struct PickLog {
    n_top: usize,
    entries: Arc<Mutex<Vec<PickedLogProbs>>>,
}

impl PickLog {
    /// Creates an empty log that records the `n_top` most likely tokens with each picked token.
    #[must_use]
    pub fn new(n_top: usize) -> Self {
        Self {
            n_top,
            entries: Arc::default(),
        }
    }

    /// Removes and returns all entries. There may be more entries than emitted tokens if the answer
    /// was cut.
    #[must_use]
    pub fn take(&self) -> Vec<PickedLogProbs> {
        std::mem::take(&mut *self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn note(&self, token: TokenId, logits: &[f32]) -> Result<(), LogitsError> {
        let best = TopK::from_logits(logits, logits.len(), self.n_top.max(1))?;
        // The log-probability of the best token gives the normalisation of the row.
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

/// Like [`MatchPicks`](super::MatchPicks), but from adjusted logits.
///
/// At each node, the logits are adjusted by the tokens up to that node and masked by the
/// constraint, if there is one, separately along each path of the tree.
///
/// Every pick becomes a token of the answer, accepted or bonus, so the rule knows the answer from
/// its own picks. The tokens are those of plain decoding with the same rule.
#[derive(Debug)]
pub struct AdjustedPicks {
    sampler: Sampler,
    uniforms: PositionUniforms,
    adjustments: LogitAdjustments,
    said: Said,
    constraint: Option<Box<dyn Constraint + Send>>,
    forced: ForcedTokens,
    log: Option<PickLog>,
    row: Vec<f32>,
}

impl AdjustedPicks {
    /// Creates the rule for an answer to `prompt`.
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
            constraint: None,
            forced: ForcedTokens::Decoded,
            log: None,
            row: Vec::new(),
        }
    }

    /// Records the log-probabilities of all picks in `log`.
    #[must_use]
    pub fn with_log(mut self, log: PickLog) -> Self {
        self.log = Some(log);
        self
    }

    /// Picks only tokens that `constraint` allows.
    #[must_use]
    pub fn with_constraint(
        self,
        constraint: Box<dyn Constraint + Send>,
        forced: ForcedTokens,
    ) -> Self {
        Self {
            constraint: Some(constraint),
            forced,
            ..self
        }
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
        if let Some(constraint) = &mut self.constraint {
            let masked = constraint.mask(&mut self.row);
            masked.map_err(LogitsError::Constraint)?;
        }
        let pick = self.sampler.pick(&self.row, self.uniforms.at(position));
        let pick = pick.map_err(|error| error.at_row(row))?;
        if let Some(log) = &self.log {
            log.note(pick, original)
                .map_err(|error| error.at_row(row))?;
        }
        self.said.note(pick);
        if let Some(constraint) = &mut self.constraint {
            constraint.advance(pick).map_err(LogitsError::Constraint)?;
        }
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

    fn shape(&mut self, tree: TokenTree) -> Result<TokenTree, BoxError> {
        match (&mut self.constraint, self.forced) {
            (Some(constraint), ForcedTokens::Drafted) => shape(&mut **constraint, &tree),
            _ => Ok(tree),
        }
    }
}
