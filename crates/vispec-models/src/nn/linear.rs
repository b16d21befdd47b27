//! Linear layers with the weight as the checkpoint has it, or quantised.

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use vispec_kernels::QuantizedWeight;

use super::cpu;
use super::rows::row_numbers;
use crate::weights::Weights;

/// Whether a linear layer adds a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bias {
    /// `x W^T + b`
    Yes,
    /// `x W^T`
    No,
}

/// A weight `[outputs, inputs]`.
#[derive(Module, Debug)]
pub(crate) enum LinearWeight {
    /// In the layout of the checkpoint and in the storage type: on the CPU it is read straight from
    /// the memory map.
    Dense(Param<Tensor<2>>),
    /// In 8 or 4 bits, in the memory of the CPU.
    Quantized(QuantizedMatrix),
}

/// A quantised weight. Cloning shares it.
#[derive(Module, Debug)]
pub(crate) struct QuantizedMatrix {
    #[module(skip)]
    weight: Arc<QuantizedWeight>,
    #[module(skip)]
    dims: [usize; 2],
}

impl QuantizedMatrix {
    /// The weight `[outputs, inputs]` of `dims`.
    #[must_use]
    pub(crate) fn new(weight: Arc<QuantizedWeight>, dims: [usize; 2]) -> Self {
        Self { weight, dims }
    }

    /// The weight as kernels take it.
    pub(super) fn weight(&self) -> &QuantizedWeight {
        &self.weight
    }
}

impl LinearWeight {
    /// `[outputs, inputs]`
    #[must_use]
    pub(crate) fn dims(&self) -> [usize; 2] {
        match self {
            Self::Dense(weight) => weight.dims(),
            Self::Quantized(weight) => weight.dims,
        }
    }
}

/// `y = x W^T + b` with `weight` `[outputs, inputs]` and `bias` `[outputs]`.
#[derive(Module, Debug)]
pub struct Linear {
    weight: LinearWeight,
    bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// Takes `weight` and, if asked for, `bias` from `weights`.
    #[must_use]
    pub(crate) fn load(weights: &Weights<'_>, inputs: usize, outputs: usize, bias: Bias) -> Self {
        let bias = match bias {
            Bias::Yes => Some(weights.vector("bias", [outputs])),
            Bias::No => None,
        };
        Self::new(weights.linear("weight", [outputs, inputs]), bias)
    }

    /// A layer made of `weight` `[outputs, inputs]` and `bias` `[outputs]`.
    #[must_use]
    pub(crate) fn new(weight: LinearWeight, bias: Option<Tensor<1>>) -> Self {
        Self {
            weight,
            bias: bias.map(Param::from_tensor),
        }
    }

    /// A layer whose weight `[outputs, inputs]` is not quantised.
    #[must_use]
    pub fn from_tensors(weight: Tensor<2>, bias: Option<Tensor<1>>) -> Self {
        Self::new(LinearWeight::Dense(Param::from_tensor(weight)), bias)
    }

    /// Rows of the weight.
    #[must_use]
    pub(crate) fn n_outputs(&self) -> usize {
        self.weight.dims()[0]
    }

    /// Columns of the weight.
    #[must_use]
    pub(crate) fn n_inputs(&self) -> usize {
        self.weight.dims()[1]
    }

    /// The layer cut to some of its outputs, in this order.
    ///
    /// # Panics
    /// If there is no such output.
    #[must_use]
    pub(crate) fn select_outputs(&self, outputs: &[u32]) -> Self {
        let index = |device: &Device| row_numbers(outputs, device);
        let weight = match &self.weight {
            LinearWeight::Dense(weight) => {
                let weight = weight.val();
                let index = index(&weight.device());
                LinearWeight::Dense(Param::from_tensor(weight.select(0, index)))
            }
            LinearWeight::Quantized(QuantizedMatrix { weight, dims }) => {
                let rows = weight.select_outputs(outputs);
                LinearWeight::Quantized(QuantizedMatrix::new(
                    Arc::new(rows),
                    [outputs.len(), dims[1]],
                ))
            }
        };
        let bias = self.bias.as_ref().map(|bias| {
            let bias = bias.val();
            let index = index(&bias.device());
            bias.select(0, index)
        });
        Self::new(weight, bias)
    }

    /// # Shapes
    /// `x` `[..., inputs]`, result `[..., outputs]`.
    #[must_use]
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let [y] = Self::forward_group([self], x);
        y
    }

    /// Several layers on the same rows; on the CPU in one pass over them.
    ///
    /// # Shapes
    /// `x` `[..., inputs]`, results `[..., outputs]`.
    #[must_use]
    pub(crate) fn forward_group<const N: usize, const D: usize>(
        layers: [&Self; N],
        x: Tensor<D>,
    ) -> [Tensor<D>; N] {
        let dims = x.dims();
        let inputs = dims[D - 1];
        let rows = dims[..D - 1].iter().product::<usize>();
        let x = x.reshape([rows, inputs]);
        let outputs = cpu::linear(&x, layers)
            .unwrap_or_else(|| layers.map(|layer| layer.forward_dense(x.clone())));
        outputs.map(|y| {
            let mut dims = dims;
            dims[D - 1] = y.dims()[1];
            y.reshape(dims)
        })
    }

    /// The same through Burn's operations.
    fn forward_dense(&self, x: Tensor<2>) -> Tensor<2> {
        let LinearWeight::Dense(weight) = &self.weight else {
            unreachable!("quantised weights are made for the CPU only, whose kernels take any rows")
        };
        let y = x.matmul(weight.val().transpose());
        match &self.bias {
            Some(bias) => y + bias.val().unsqueeze(),
            None => y,
        }
    }

    /// The weight `[outputs, inputs]`, unless it is quantised.
    #[must_use]
    pub(crate) fn dense_weight(&self) -> Option<Tensor<2>> {
        match &self.weight {
            LinearWeight::Dense(weight) => Some(weight.val()),
            LinearWeight::Quantized(_) => None,
        }
    }

    /// The weight.
    pub(super) fn weight(&self) -> &LinearWeight {
        &self.weight
    }

    /// The bias `[outputs]`.
    pub(super) fn bias(&self) -> Option<Tensor<1>> {
        self.bias.as_ref().map(Param::val)
    }
}
