//! What a draft's decoder reads: tokens beside the hidden states before them.

use burn::module::Module;
use burn::tensor::Tensor;

use super::eagle3::{Eagle3Config, PairResidual};
use crate::nn::{Bias, FirstInput, LayerRows, Linear, RmsNorm, StackInput, join_rows};
use crate::weights::Weights;

/// How embeddings and hidden states enter the decoder.
#[derive(Module, Debug)]
pub(crate) struct DraftInput {
    /// Without a pair `[embedding ; hidden] -> hidden`, rows that the layer reads as they are; with
    /// one some states of the target to one, `[states * target_hidden] -> hidden`.
    fc: Linear,
    pair: Option<Pair>,
}

/// Embedding and hidden state side by side, as in EAGLE-3: attention reads both behind their norms;
/// the residual stream is the hidden state.
#[derive(Module, Debug)]
pub(crate) struct Pair {
    /// Norms the target's states, all together, before they become one.
    input_norm: Option<RmsNorm>,
    /// Norms the embedding.
    input_layernorm: RmsNorm,
    hidden_norm: RmsNorm,
    #[module(skip)]
    residual: PairResidual,
}

impl DraftInput {
    /// Takes `fc` from `weights`.
    pub(super) fn joined(weights: &Weights<'_>, hidden: usize, bias: Bias) -> Self {
        Self {
            fc: Linear::load(&weights.at("fc"), 2 * hidden, hidden, bias),
            pair: None,
        }
    }

    /// Takes `fc`, the norms of layer 0 and, if there is one, `input_norm` from `weights`.
    ///
    /// # Arguments
    /// * `n_states` - states of the target that become one.
    pub(super) fn paired(weights: &Weights<'_>, config: &Eagle3Config, n_states: usize) -> Self {
        let (hidden, eps) = (config.decoder.hidden, config.decoder.rms_eps);
        let fused = n_states * config.target_hidden;
        let layer = weights.at("layers.0");
        let norm = |at: &Weights<'_>, name, width| RmsNorm::load(&at.at(name), width, eps);
        let input_norm = config.norm_before_fc;
        Self {
            fc: Linear::load(&weights.at("fc"), fused, hidden, Bias::No),
            pair: Some(Pair {
                input_norm: input_norm.then(|| norm(weights, "input_norm", fused)),
                input_layernorm: norm(&layer, "input_layernorm", hidden),
                hidden_norm: norm(&layer, "hidden_norm", hidden),
                residual: config.residual,
            }),
        }
    }

    /// What the attention of the first layer reads.
    pub(super) fn first(&self, hidden: usize) -> FirstInput {
        match &self.pair {
            None => FirstInput::Residual,
            Some(_) => FirstInput::Given(2 * hidden),
        }
    }

    /// Whether the target's hidden states are those that the decoder goes on with.
    pub(super) fn reads_target_as_it_is(&self) -> bool {
        self.pair.is_none()
    }

    /// Hidden states `[rows, hidden]` out of the target's features `[rows, states * target_hidden]`.
    pub(super) fn fuse_target(&self, features: Tensor<2>) -> Tensor<2> {
        match &self.pair {
            None => features,
            Some(pair) => self.fc.forward(match &pair.input_norm {
                Some(norm) => norm.forward(features),
                None => features,
            }),
        }
    }

    /// Rows of text; `embeds` and `hidden` `[rows, hidden]`.
    pub(super) fn text(&self, embeds: Tensor<2>, hidden: Tensor<2>) -> StackInput {
        match &self.pair {
            None => {
                let both = Tensor::cat(vec![embeds, hidden], 1);
                self.fc.forward(both).into()
            }
            Some(pair) => pair.rows(embeds, hidden),
        }
    }

    /// Rows of compressed image tokens `[rows, hidden]`, which stand for token and state at once.
    pub(super) fn image(&self, tokens: Tensor<2>) -> StackInput {
        match &self.pair {
            None => tokens.into(),
            Some(pair) => pair.rows(tokens.clone(), tokens),
        }
    }

    /// Weights that a row of text reads here, besides those of the decoder.
    pub(super) fn n_weights(&self) -> usize {
        self.fc.n_inputs() * self.fc.n_outputs()
    }
}

impl Pair {
    fn rows(&self, embeds: Tensor<2>, hidden: Tensor<2>) -> StackInput {
        let embeds = self.input_layernorm.forward(embeds);
        let normed = self.hidden_norm.forward(hidden.clone());
        StackInput {
            given: Some(Tensor::cat(vec![embeds, normed.clone()], 1)),
            residual: match self.residual {
                PairResidual::Raw => hidden,
                PairResidual::Normed => normed,
            },
            later: LayerRows::default(),
        }
    }
}

/// The rows of each input after those of the one before, all for the same decoder.
///
/// # Panics
/// If there is none.
pub(super) fn join_inputs(parts: Vec<StackInput>) -> StackInput {
    let given: Option<Vec<_>> = parts.iter().map(|part| part.given.clone()).collect();
    StackInput {
        residual: join_rows(parts.into_iter().map(|part| part.residual).collect()),
        given: given.map(join_rows),
        later: LayerRows::default(),
    }
}
