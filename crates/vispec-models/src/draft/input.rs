//! Input of a draft's decoder: each token paired with the hidden state of the token before it.

use burn::module::Module;
use burn::tensor::Tensor;

use super::eagle3::{Eagle3Config, PairResidual};
use crate::nn::{Bias, FirstInput, LayerRows, Linear, RmsNorm, StackInput, join_rows};
use crate::weights::Weights;

/// How embeddings and hidden states enter the decoder.
#[derive(Module, Debug)]
pub(crate) struct DraftInput {
    /// Without a pair: `[embedding ; hidden] -> hidden`, whose output rows are the decoder's input.
    /// With a pair: fuses several states of the target into one,
    /// `[states * target_hidden] -> hidden`.
    fc: Linear,
    pair: Option<Pair>,
}

/// Embedding and hidden state side by side, as in EAGLE-3. Attention reads both after their norms;
/// the residual stream is the hidden state.
#[derive(Module, Debug)]
pub(crate) struct Pair {
    /// Normalises the concatenated states of the target before they are fused.
    input_norm: Option<RmsNorm>,
    /// Normalises the embedding.
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

    /// Takes `fc`, the norms of layer 0 and, if the config has one, `input_norm` from `weights`.
    ///
    /// # Arguments
    /// * `n_states` - number of target states that are fused into one.
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

    /// Returns the kind of input that the attention of the first layer reads.
    pub(super) fn first(&self, hidden: usize) -> FirstInput {
        match &self.pair {
            None => FirstInput::Residual,
            Some(_) => FirstInput::Given(2 * hidden),
        }
    }

    /// Returns whether the decoder uses the target's hidden states without fusing them.
    pub(super) fn reads_target_as_it_is(&self) -> bool {
        self.pair.is_none()
    }

    /// Fuses the target's features `[rows, states * target_hidden]` into hidden states
    /// `[rows, hidden]`.
    pub(super) fn fuse_target(&self, features: Tensor<2>) -> Tensor<2> {
        match &self.pair {
            None => features,
            Some(pair) => self.fc.forward(match &pair.input_norm {
                Some(norm) => norm.forward(features),
                None => features,
            }),
        }
    }

    /// Builds the input rows of text from `embeds` and `hidden`, both `[rows, hidden]`.
    pub(super) fn text(&self, embeds: Tensor<2>, hidden: Tensor<2>) -> StackInput {
        match &self.pair {
            None => {
                let both = Tensor::cat(vec![embeds, hidden], 1);
                self.fc.forward(both).into()
            }
            Some(pair) => pair.rows(embeds, hidden),
        }
    }

    /// Builds the input rows of compressed image tokens `[rows, hidden]`, each of which serves as
    /// both embedding and hidden state.
    pub(super) fn image(&self, tokens: Tensor<2>) -> StackInput {
        match &self.pair {
            None => tokens.into(),
            Some(pair) => pair.rows(tokens.clone(), tokens),
        }
    }

    /// Number of weights that a text row reads here, in addition to those of the decoder.
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

/// Concatenates the rows of several inputs of the same decoder.
///
/// # Panics
/// If `parts` is empty.
pub(super) fn join_inputs(parts: Vec<StackInput>) -> StackInput {
    let given: Option<Vec<_>> = parts.iter().map(|part| part.given.clone()).collect();
    StackInput {
        residual: join_rows(parts.into_iter().map(|part| part.residual).collect()),
        given: given.map(join_rows),
        later: LayerRows::default(),
    }
}
