//! Medusa heads: a baseline that predicts each of the next tokens from only the last hidden state.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Tensor, activation, s};
use vispec_core::{
    Ask, Beam, BoxError, DraftModel, DraftPassOf, DraftStep, Expansion, Prompt as _, TokenId, TopK,
};

use super::vocab::{AddedTokens, DraftHead, Scoring};
use crate::nn::{Bias, Linear};
use crate::prompt::EncodedPrompt;
use crate::target::VlmTarget;
use crate::weights::Weights;

/// One residual block per future token: `h + silu(W h + b)`. The target's head reads the results.
#[derive(Module, Debug)]
pub(crate) struct MedusaHeads {
    heads: Vec<Linear>,
}

impl MedusaHeads {
    /// Takes `medusa_head.0.0.linear`, `medusa_head.1.0.linear` … from `weights`.
    pub(crate) fn load(weights: &Weights<'_>, hidden: usize) -> Self {
        let mut heads = Vec::new();
        loop {
            let at = weights.at(format!("medusa_head.{}.0.linear", heads.len()));
            if !heads.is_empty() && !at.contains("weight") {
                break;
            }
            heads.push(Linear::load(&at, hidden, hidden, Bias::Yes));
        }
        Self { heads }
    }

    /// Returns the number of heads, which is the depth of the tree.
    pub(crate) fn n_heads(&self) -> usize {
        self.heads.len()
    }

    /// Applies all heads to each row.
    ///
    /// # Shapes
    /// `hidden` `[rows, hidden]`; the result is `[rows * heads, hidden]`, with the heads of a row
    /// in consecutive rows.
    pub(crate) fn forward(&self, hidden: &Tensor<2>) -> Tensor<2> {
        let [n_rows, width] = hidden.dims();
        let guesses = self
            .heads
            .iter()
            .map(|head| hidden.clone() + activation::silu(head.forward(hidden.clone())))
            .collect();
        Tensor::stack::<3>(guesses, 1).reshape([n_rows * self.n_heads(), width])
    }
}

/// Medusa heads and the target's output head. Cloning shares the weights.
#[derive(Debug, Clone)]
pub struct Medusa {
    pub(super) heads: Arc<MedusaHeads>,
    /// The target's output head.
    pub(super) head: Arc<DraftHead>,
}

impl Medusa {
    /// Returns whether both can share a pass.
    fn shares_passes_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.heads, &other.heads) && Arc::ptr_eq(&self.head, &other.head)
    }

    /// Starts a conversation.
    #[must_use]
    pub fn session(&self) -> MedusaSession {
        MedusaSession {
            medusa: self.clone(),
            guesses: None,
            added: AddedTokens::default(),
        }
    }
}

/// Medusa heads within one conversation.
#[derive(Debug)]
pub struct MedusaSession {
    medusa: Medusa,
    /// The best tokens of each head, `[heads, k]`, for the current root.
    guesses: Option<TopK>,
    /// Tokens that the draft may propose in addition to those of the head.
    added: AddedTokens,
}

impl MedusaSession {
    /// Adds tokens of the conversation to those that may be proposed.
    fn add(&mut self, tokens: impl IntoIterator<Item = TokenId>) {
        self.medusa.head.add(&mut self.added, tokens);
    }

    /// Returns row `level` of the guesses, repeated for each of `n_rows` parents.
    fn level(&self, level: usize, n_rows: usize) -> TopK {
        let Some(all) = &self.guesses else {
            return TopK {
                k: 0,
                tokens: Vec::new(),
                log_probs: Vec::new(),
            };
        };
        let range = level * all.k..(level + 1) * all.k;
        TopK {
            k: all.k,
            tokens: all.tokens[range.clone()].repeat(n_rows),
            log_probs: all.log_probs[range].repeat(n_rows),
        }
    }

    fn guess(&mut self, features: &Tensor<2>, ask: Ask) -> Result<Expansion<()>, BoxError> {
        let medusa = self.medusa.clone();
        let results = guess_together(&medusa, vec![(self, last_row(features), ask)]);
        let result = results.into_iter().next();
        result.unwrap_or_else(|| Err("a draft pass returned no result".into()))
    }

    /// Returns the guesses for the level below `beam`.
    fn below(&self, beam: &Beam) -> Expansion<()> {
        Expansion {
            top: self.level(beam.level + 1, beam.tokens.len()),
            hidden: (),
        }
    }
}

fn last_row(features: &Tensor<2>) -> Tensor<2> {
    let [n_rows, _] = features.dims();
    features.clone().slice(s![n_rows - 1..n_rows, ..])
}

/// Computes the guesses of conversations that share the weights of `medusa`, from the hidden state
/// `[1, hidden]` of each.
fn guess_together(
    medusa: &Medusa,
    conversations: Vec<(&mut MedusaSession, Tensor<2>, Ask)>,
) -> Vec<Result<Expansion<()>, BoxError>> {
    let n_heads = medusa.heads.n_heads();
    // Each head predicts a token one position further ahead.
    let sequences = conversations.iter().flat_map(|(session, _, ask)| {
        (0..n_heads).map(|head| Scoring {
            rows: 1,
            ask: ask.ahead(head),
            added: &session.added,
        })
    });
    let sequences: Vec<_> = sequences.collect();
    let last = conversations.iter().map(|(_, last, _)| last.clone());
    let last = Tensor::cat(last.collect(), 0);
    let of_heads = medusa.head.top_k(&medusa.heads.forward(&last), &sequences);
    let mut of_heads = of_heads.into_iter();
    let guess = |(session, ..): (&mut MedusaSession, _, _)| {
        let of_session: Vec<_> = of_heads.by_ref().take(n_heads).collect();
        session.guesses = Some(joined(of_session)?);
        Ok(Expansion {
            top: session.level(0, 1),
            hidden: (),
        })
    };
    conversations.into_iter().map(guess).collect()
}

/// Stacks rows, all of which have the same number of tokens.
fn joined(rows: Vec<Result<TopK, BoxError>>) -> Result<TopK, BoxError> {
    let mut all = TopK::default();
    for row in rows {
        all.append(row?);
    }
    Ok(all)
}

impl DraftModel<VlmTarget> for MedusaSession {
    type Hidden = ();

    fn name(&self) -> &str {
        "medusa"
    }

    fn fixed_levels(&self) -> Option<usize> {
        Some(self.medusa.heads.n_heads())
    }

    fn begin(
        &mut self,
        prompt: &EncodedPrompt,
        features: Tensor<2>,
        next: TokenId,
        ask: Ask,
    ) -> Result<Expansion<()>, BoxError> {
        self.postpone_prompt(prompt, features.clone(), next)?;
        self.guess(&features, ask)
    }

    fn commit(
        &mut self,
        accepted: &[TokenId],
        features: Tensor<2>,
        next: TokenId,
        ask: Ask,
    ) -> Result<Expansion<()>, BoxError> {
        self.add(accepted.iter().copied().chain([next]));
        self.guess(&features, ask)
    }

    /// Ignores the features, since the heads read only the last ones.
    fn postpone_prompt(
        &mut self,
        prompt: &EncodedPrompt,
        _features: Tensor<2>,
        next: TokenId,
    ) -> Result<(), BoxError> {
        self.added = AddedTokens::default();
        self.add(prompt.token_ids().iter().copied().chain([next]));
        Ok(())
    }

    fn postpone(
        &mut self,
        accepted: &[TokenId],
        _features: Tensor<2>,
        next: TokenId,
    ) -> Result<(), BoxError> {
        self.add(accepted.iter().copied().chain([next]));
        Ok(())
    }

    fn expand(&mut self, beam: &Beam, _parents: &(), _ask: Ask) -> Result<Expansion<()>, BoxError> {
        Ok(self.below(beam))
    }

    fn forward(
        passes: Vec<DraftPassOf<'_, VlmTarget, Self>>,
    ) -> Vec<Result<Expansion<()>, BoxError>> {
        let missing = || Err("a draft pass returned no result for a sequence".into());
        let mut results: Vec<_> = passes.iter().map(|_| missing()).collect();
        let mut groups: Vec<(Medusa, Vec<usize>, Vec<_>)> = Vec::new();
        for (place, pass) in passes.into_iter().enumerate() {
            let features = match pass.step {
                DraftStep::Commit {
                    accepted,
                    features,
                    next,
                } => {
                    pass.model.add(accepted.iter().copied().chain([next]));
                    features
                }
                DraftStep::Expand { beam, .. } => {
                    results[place] = Ok(pass.model.below(beam));
                    continue;
                }
            };
            let medusa = &pass.model.medusa;
            let group = groups
                .iter()
                .position(|(of_group, ..)| of_group.shares_passes_with(medusa));
            let group = group.unwrap_or_else(|| {
                groups.push((medusa.clone(), Vec::new(), Vec::new()));
                groups.len() - 1
            });
            let (_, places, members) = &mut groups[group];
            places.push(place);
            members.push((pass.model, last_row(&features), pass.ask));
        }
        for (medusa, places, members) in groups {
            for (place, result) in places.into_iter().zip(guess_together(&medusa, members)) {
                results[place] = result;
            }
        }
        results
    }
}
