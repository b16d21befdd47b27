//! Projection from the width of the vision tower to that of the text model.

use burn::module::Module;
use burn::tensor::{Tensor, activation};

use crate::nn::{Bias, Linear};
use crate::weights::Weights;

/// Two linear layers with an exact GELU between them.
#[derive(Module, Debug)]
pub(super) struct Projector {
    linear_1: Linear,
    linear_2: Linear,
}

impl Projector {
    /// Loads `linear_1` and `linear_2` from `weights`.
    pub(super) fn load(weights: &Weights<'_>, inputs: usize, outputs: usize, bias: Bias) -> Self {
        Self {
            linear_1: Linear::load(&weights.at("linear_1"), inputs, outputs, bias),
            linear_2: Linear::load(&weights.at("linear_2"), outputs, outputs, bias),
        }
    }

    /// # Shapes
    /// `x` `[tiles, tokens, inputs]`, result `[tiles, tokens, outputs]`.
    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.linear_2
            .forward(activation::gelu(self.linear_1.forward(x)))
    }
}
