//! One block of the vision tower: attention within groups of patches, then a gated feed-forward
//! block.

use burn::module::Module;
use burn::tensor::Tensor;

use super::vision_config::QwenVisionConfig;
use crate::nn::{Bias, GatedMlp, PatchGroups, RmsNorm, RotaryTable, VisionAttention};
use crate::weights::Weights;

/// Added to the mean square in norms; the config has no field for it.
pub(super) const NORM_EPS: f64 = 1e-6;

/// A pre-norm block.
#[derive(Module, Debug)]
pub(super) struct VisionBlock {
    norm1: RmsNorm,
    attn: VisionAttention,
    norm2: RmsNorm,
    mlp: GatedMlp,
}

impl VisionBlock {
    pub(super) fn load(weights: &Weights<'_>, config: &QwenVisionConfig) -> Self {
        let norm = |name: &str| RmsNorm::load(&weights.at(name), config.tower.hidden, NORM_EPS);
        Self {
            norm1: norm("norm1"),
            attn: VisionAttention::load(&weights.at("attn"), config.tower.hidden),
            norm2: norm("norm2"),
            mlp: GatedMlp::load(
                &weights.at("mlp"),
                config.tower.hidden,
                config.tower.intermediate,
                Bias::Yes,
            ),
        }
    }

    /// Runs the block; `runs` must cover all patches in order.
    ///
    /// # Shapes
    /// `x` and the result `[patches, hidden]`.
    pub(super) fn forward(
        &self,
        x: Tensor<2>,
        rotary: &RotaryTable,
        runs: &[PatchGroups],
    ) -> Tensor<2> {
        let x = x.clone() + self.attn.forward(self.norm1.forward(x), rotary, runs);
        let normed = self.norm2.forward(x.clone());
        x + self.mlp.forward(normed)
    }
}
