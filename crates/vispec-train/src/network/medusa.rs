//! Medusa heads in training.

use burn::module::Module;
use burn::tensor::{Tensor, activation};

use super::layers::Linear;

/// `h + silu(W h + b)`
#[derive(Module, Debug)]
pub(crate) struct ResidualBlock {
    pub(super) linear: Linear,
}

/// One residual block for each future token. The nesting is that of the names in checkpoints,
/// `medusa_head.0.0.linear.weight`.
#[derive(Module, Debug)]
pub struct MedusaNetwork {
    pub(super) medusa_head: Vec<Vec<ResidualBlock>>,
}

impl MedusaNetwork {
    /// Number of heads.
    #[must_use]
    pub(crate) fn n_heads(&self) -> usize {
        self.medusa_head.len()
    }

    /// What head number `head` makes of hidden states.
    ///
    /// # Shapes
    /// `hidden` and the result `[rows, hidden]`.
    #[must_use]
    pub(crate) fn forward(&self, head: usize, hidden: Tensor<2>) -> Tensor<2> {
        self.medusa_head[head].iter().fold(hidden, |x, block| {
            let inner = block.linear.forward(x.clone());
            x + activation::silu(inner)
        })
    }
}
