//! Linear layers whose weights have the checkpoint's layout or are quantised.

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
    /// In the layout of the checkpoint and in the storage type. On the CPU it is read directly from
    /// the memory map.
    Dense(Param<Tensor<2>>),
    /// In 8 or 4 bits, in CPU memory.
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
    /// Wraps a weight with the dimensions `dims`, `[outputs, inputs]`.
    pub(crate) fn new(weight: Arc<QuantizedWeight>, dims: [usize; 2]) -> Self {
        Self { weight, dims }
    }

    /// Returns the weight in the form that kernels read.
    pub(super) fn weight(&self) -> &QuantizedWeight {
        &self.weight
    }
}

impl LinearWeight {
    /// Returns the dimensions `[outputs, inputs]`.
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
    /// Takes `weight` and, with [`Bias::Yes`], `bias` from `weights`.
    pub(crate) fn load(weights: &Weights<'_>, inputs: usize, outputs: usize, bias: Bias) -> Self {
        let bias = match bias {
            Bias::Yes => Some(weights.vector("bias", [outputs])),
            Bias::No => None,
        };
        Self::new(weights.linear("weight", [outputs, inputs]), bias)
    }

    /// Creates a layer from `weight` `[outputs, inputs]` and `bias` `[outputs]`.
    pub(crate) fn new(weight: LinearWeight, bias: Option<Tensor<1>>) -> Self {
        Self {
            weight,
            bias: bias.map(Param::from_tensor),
        }
    }

    /// Creates a layer from an unquantised `weight` `[outputs, inputs]` and `bias` `[outputs]`.
    #[must_use]
    pub fn from_tensors(weight: Tensor<2>, bias: Option<Tensor<1>>) -> Self {
        Self::new(LinearWeight::Dense(Param::from_tensor(weight)), bias)
    }

    /// Returns the number of rows of the weight.
    pub(crate) fn n_outputs(&self) -> usize {
        self.weight.dims()[0]
    }

    /// Returns the number of columns of the weight.
    pub(crate) fn n_inputs(&self) -> usize {
        self.weight.dims()[1]
    }

    /// Returns a layer with only the given outputs, in this order.
    ///
    /// # Panics
    /// If an output does not exist.
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

    /// Applies the layer.
    ///
    /// # Shapes
    /// `x` `[..., inputs]`, result `[..., outputs]`.
    #[must_use]
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let [y] = Self::forward_group([self], x);
        y
    }

    /// Applies several layers to the same rows; on the CPU in one pass over the rows.
    ///
    /// # Shapes
    /// `x` `[..., inputs]`, results `[..., outputs]`.
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

    /// Applies the layer through Burn's operations.
    fn forward_dense(&self, x: Tensor<2>) -> Tensor<2> {
        let LinearWeight::Dense(weight) = &self.weight else {
            unreachable!("quantised weights exist only on the CPU, whose kernels accept any rows")
        };
        let y = x.matmul(weight.val().transpose());
        match &self.bias {
            Some(bias) => y + bias.val().unsqueeze(),
            None => y,
        }
    }

    /// Returns the weight `[outputs, inputs]`, or `None` if it is quantised.
    pub(crate) fn dense_weight(&self) -> Option<Tensor<2>> {
        match &self.weight {
            LinearWeight::Dense(weight) => Some(weight.val()),
            LinearWeight::Quantized(_) => None,
        }
    }

    /// Returns the weight.
    pub(super) fn weight(&self) -> &LinearWeight {
        &self.weight
    }

    /// Returns the bias `[outputs]`, if any.
    pub(super) fn bias(&self) -> Option<Tensor<1>> {
        self.bias.as_ref().map(Param::val)
    }
}
