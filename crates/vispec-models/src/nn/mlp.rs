//! The gated feed-forward block of Llama and Qwen.

use burn::module::Module;
use burn::tensor::{Tensor, activation};

use super::cpu;
use super::linear::{Bias, Linear};
use crate::weights::Weights;

/// `down(silu(gate(x)) * up(x))`
#[derive(Module, Debug)]
pub(crate) struct GatedMlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl GatedMlp {
    /// Takes `gate_proj`, `up_proj` and `down_proj` from `weights`.
    pub(crate) fn load(
        weights: &Weights<'_>,
        hidden: usize,
        intermediate: usize,
        bias: Bias,
    ) -> Self {
        Self {
            gate_proj: Linear::load(&weights.at("gate_proj"), hidden, intermediate, bias),
            up_proj: Linear::load(&weights.at("up_proj"), hidden, intermediate, bias),
            down_proj: Linear::load(&weights.at("down_proj"), intermediate, hidden, bias),
        }
    }

    /// Returns the projections `gate`, `up` and `down`.
    #[cfg(any(feature = "flex", feature = "cube"))]
    pub(super) fn projections(&self) -> [&Linear; 3] {
        [&self.gate_proj, &self.up_proj, &self.down_proj]
    }

    /// Applies the block.
    ///
    /// # Shapes
    /// `x` and the result `[..., hidden]`.
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let [gate, up] = Linear::forward_group([&self.gate_proj, &self.up_proj], x);
        let product = cpu::silu_mul(&gate, &up).unwrap_or_else(|| activation::silu(gate) * up);
        self.down_proj.forward(product)
    }
}
