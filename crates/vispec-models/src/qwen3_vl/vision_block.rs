//! One block of the vision tower, and the merger of patches.

use burn::module::Module;
use burn::tensor::{Tensor, activation};

use super::vision_config::Qwen3VisionConfig;
use crate::nn::{Bias, LayerNorm, Linear, PatchGroups, RotaryTable, VisionAttention};
use crate::weights::Weights;

/// Added to the variance in norms; the config has no field for it.
const NORM_EPS: f64 = 1e-6;

/// A pre-norm block.
#[derive(Module, Debug)]
pub(super) struct VisionBlock {
    norm1: LayerNorm,
    attn: VisionAttention,
    norm2: LayerNorm,
    linear_fc1: Linear,
    linear_fc2: Linear,
}

impl VisionBlock {
    pub(super) fn load(weights: &Weights<'_>, config: &Qwen3VisionConfig) -> Self {
        let (hidden, inner) = (config.tower.hidden, config.tower.intermediate);
        let norm = |name: &str| LayerNorm::load(&weights.at(name), hidden, NORM_EPS);
        let linear = |name: &str, inputs, outputs| {
            Linear::load(&weights.at("mlp").at(name), inputs, outputs, Bias::Yes)
        };
        Self {
            norm1: norm("norm1"),
            attn: VisionAttention::load(&weights.at("attn"), hidden),
            norm2: norm("norm2"),
            linear_fc1: linear("linear_fc1", hidden, inner),
            linear_fc2: linear("linear_fc2", inner, hidden),
        }
    }

    /// Runs the block. Each patch attends to the patches of its own frame.
    ///
    /// # Shapes
    /// `x` and the result `[patches, hidden]`.
    pub(super) fn forward(
        &self,
        x: Tensor<2>,
        rotary: &RotaryTable,
        frames: PatchGroups,
    ) -> Tensor<2> {
        let normed = self.norm1.forward(x.clone());
        let x = x + self.attn.forward(normed, rotary, &[frames]);
        let inner = self.linear_fc1.forward(self.norm2.forward(x.clone()));
        let inner = activation::gelu_approximate(inner);
        x + self.linear_fc2.forward(inner)
    }
}

/// What a merger normalises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Normed {
    /// Each patch, before the patches of a token are joined; used after the last block.
    Patches,
    /// Each token, after its patches are joined; used after earlier blocks.
    Tokens,
}

/// Merges the patches of a token and projects them to the width of the text model.
#[derive(Module, Debug)]
pub(super) struct Merger {
    norm: LayerNorm,
    linear_fc1: Linear,
    linear_fc2: Linear,
    #[module(skip)]
    normed: Normed,
}

impl Merger {
    pub(super) fn load(weights: &Weights<'_>, config: &Qwen3VisionConfig, normed: Normed) -> Self {
        let width = config.tower.hidden * config.tower.patches_per_token();
        let norm_width = match normed {
            Normed::Patches => config.tower.hidden,
            Normed::Tokens => width,
        };
        let linear =
            |name: &str, outputs| Linear::load(&weights.at(name), width, outputs, Bias::Yes);
        Self {
            norm: LayerNorm::load(&weights.at("norm"), norm_width, NORM_EPS),
            linear_fc1: linear("linear_fc1", width),
            linear_fc2: linear("linear_fc2", config.tower.out_hidden),
            normed,
        }
    }

    /// # Shapes
    /// `x` `[patches, hidden]`, result `[image_tokens, out_hidden]`.
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let [patches, hidden] = x.dims();
        let width = self.linear_fc1.n_outputs();
        let joined = |x: Tensor<2>| x.reshape([patches * hidden / width, width]);
        let tokens = match self.normed {
            Normed::Patches => joined(self.norm.forward(x)),
            Normed::Tokens => self.norm.forward(joined(x)),
        };
        let inner = activation::gelu(self.linear_fc1.forward(tokens));
        self.linear_fc2.forward(inner)
    }
}
