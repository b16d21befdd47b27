//! Trainable Medusa heads.

use burn::module::Module;
use burn::tensor::{Tensor, activation};

use super::layers::Linear;

/// `h + silu(W h + b)`
#[derive(Module, Debug)]
pub(crate) struct ResidualBlock {
    pub(super) linear: Linear,
}

/// One residual block for each future token. The nesting follows the names in checkpoints, such as
/// `medusa_head.0.0.linear.weight`.
#[derive(Module, Debug)]
pub struct MedusaNetwork {
    pub(super) medusa_head: Vec<Vec<ResidualBlock>>,
}

impl MedusaNetwork {
    /// Returns the number of heads.
    pub(crate) fn n_heads(&self) -> usize {
        self.medusa_head.len()
    }

    /// Applies head number `head` to hidden states.
    ///
    /// # Shapes
    /// `hidden` and the result `[rows, hidden]`.
    pub(crate) fn forward(&self, head: usize, hidden: Tensor<2>) -> Tensor<2> {
        self.medusa_head[head].iter().fold(hidden, |x, block| {
            let inner = block.linear.forward(x.clone());
            x + activation::silu(inner)
        })
    }
}
