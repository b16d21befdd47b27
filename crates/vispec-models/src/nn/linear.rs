//! Linear layers with the weight as the checkpoint has it.

use burn::module::{Module, Param};
use burn::tensor::Tensor;

use super::cpu;
use crate::weights::Weights;

/// Whether a linear layer adds a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bias {
    /// `x W^T + b`
    Yes,
    /// `x W^T`
    No,
}

/// `y = x W^T + b` with `weight` `[outputs, inputs]` and `bias` `[outputs]`.
///
/// The weight keeps the layout and type of the checkpoint, so on the CPU it is read straight from
/// the memory map.
#[derive(Module, Debug)]
pub struct Linear {
    weight: Param<Tensor<2>>,
    bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// Takes `weight` and, if asked for, `bias` from `weights`.
    #[must_use]
    pub fn load(weights: &Weights<'_>, inputs: usize, outputs: usize, bias: Bias) -> Self {
        let bias = match bias {
            Bias::Yes => Some(weights.vector("bias", [outputs])),
            Bias::No => None,
        };
        Self::from_tensors(weights.matrix("weight", [outputs, inputs]), bias)
    }

    /// A layer made of `weight` `[outputs, inputs]` and `bias` `[outputs]`.
    #[must_use]
    pub fn from_tensors(weight: Tensor<2>, bias: Option<Tensor<1>>) -> Self {
        Self {
            weight: Param::from_tensor(weight),
            bias: bias.map(Param::from_tensor),
        }
    }

    /// Rows of the weight.
    #[must_use]
    pub fn n_outputs(&self) -> usize {
        self.weight.dims()[0]
    }

    /// # Shapes
    /// `x` `[..., inputs]`, result `[..., outputs]`.
    #[must_use]
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let mut dims = x.dims();
        let inputs = dims[D - 1];
        let rows = dims[..D - 1].iter().product::<usize>();
        let weight = self.weight.val();
        dims[D - 1] = weight.dims()[0];
        let bias = self.bias.as_ref().map(Param::val);
        let x = x.reshape([rows, inputs]);
        let y = cpu::linear(&x, &weight, bias.as_ref()).unwrap_or_else(|| {
            let y = x.matmul(weight.transpose());
            match bias {
                Some(bias) => y + bias.unsqueeze(),
                None => y,
            }
        });
        y.reshape(dims)
    }
}
