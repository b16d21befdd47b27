//! Medusa heads: a baseline that guesses each of the next tokens from the last hidden state alone.

use burn::module::Module;
use burn::tensor::{Tensor, activation, s};
use vispec_core::{Beam, BoxError, DraftModel, Expansion, TokenId, TopK};

use super::vocab::DraftHead;
use crate::nn::{Bias, Linear};
use crate::prompt::EncodedPrompt;
use crate::target::VlmTarget;
use crate::weights::Weights;

/// One residual block per future token: `h + silu(W h + b)`, read by the target's head.
#[derive(Module, Debug)]
pub struct MedusaHeads {
    heads: Vec<Linear>,
}

impl MedusaHeads {
    /// Takes `medusa_head.0.0.linear`, `medusa_head.1.0.linear` … from `weights`.
    #[must_use]
    pub fn load(weights: &Weights<'_>, hidden: usize) -> Self {
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

    /// Number of heads, which is the depth of the tree.
    #[must_use]
    pub fn n_heads(&self) -> usize {
        self.heads.len()
    }

    /// # Shapes
    /// `hidden` `[1, hidden]`, result `[heads, hidden]`.
    #[must_use]
    pub fn forward(&self, hidden: &Tensor<2>) -> Tensor<2> {
        let rows = self
            .heads
            .iter()
            .map(|head| hidden.clone() + activation::silu(head.forward(hidden.clone())))
            .collect();
        Tensor::cat(rows, 0)
    }
}

/// Medusa heads with the target's output head. Cloning shares the weights.
#[derive(Debug, Clone)]
pub struct Medusa {
    pub(super) heads: MedusaHeads,
    /// The target's output head.
    pub(super) head: DraftHead,
}

impl Medusa {
    /// Starts a conversation.
    #[must_use]
    pub fn session(&self) -> MedusaSession {
        MedusaSession {
            medusa: self.clone(),
            guesses: None,
        }
    }
}

/// Medusa heads within one conversation.
#[derive(Debug)]
pub struct MedusaSession {
    medusa: Medusa,
    /// The best tokens of each head, `[heads, k]`, for the current root.
    guesses: Option<TopK>,
}

impl MedusaSession {
    /// Row `level` of the guesses, once for each of `n_rows` parents.
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

    fn guess(&mut self, features: &Tensor<2>, k: usize) -> Result<Expansion<()>, BoxError> {
        let [n_rows, _] = features.dims();
        let last = features.clone().slice(s![n_rows - 1..n_rows, ..]);
        let guesses = self.medusa.heads.forward(&last);
        self.guesses = Some(self.medusa.head.top_k(guesses, k)?);
        Ok(Expansion {
            top: self.level(0, 1),
            hidden: (),
        })
    }
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
        _prompt: &EncodedPrompt,
        features: Tensor<2>,
        _next: TokenId,
        k: usize,
    ) -> Result<Expansion<()>, BoxError> {
        self.guess(&features, k)
    }

    fn commit(
        &mut self,
        _accepted: &[TokenId],
        features: Tensor<2>,
        _next: TokenId,
        k: usize,
    ) -> Result<Expansion<()>, BoxError> {
        self.guess(&features, k)
    }

    /// The heads read the last features only.
    fn postpone_prompt(
        &mut self,
        _prompt: &EncodedPrompt,
        _features: Tensor<2>,
        _next: TokenId,
    ) -> Result<(), BoxError> {
        Ok(())
    }

    fn postpone(
        &mut self,
        _accepted: &[TokenId],
        _features: Tensor<2>,
        _next: TokenId,
    ) -> Result<(), BoxError> {
        Ok(())
    }

    fn expand(&mut self, beam: &Beam, _parents: &(), _k: usize) -> Result<Expansion<()>, BoxError> {
        Ok(Expansion {
            top: self.level(beam.level + 1, beam.tokens.len()),
            hidden: (),
        })
    }
}
