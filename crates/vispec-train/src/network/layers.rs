//! Trainable layers.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, module};

use super::cpu;

/// `y = x W + b`.
///
/// The weight is held as `[inputs, outputs]`, the transpose of the layout in checkpoints: on the
/// CPU, products with it are fast only if its rows are contiguous.
#[derive(Module, Debug)]
pub(crate) struct Linear {
    weight: Param<Tensor<2>>,
    bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// Creates a layer from `weight` `[inputs, outputs]` and `bias` `[outputs]`.
    pub(crate) fn new(weight: Tensor<2>, bias: Option<Tensor<1>>) -> Self {
        Self {
            weight: Param::from_tensor(weight),
            bias: bias.map(Param::from_tensor),
        }
    }

    /// # Shapes
    /// `x` `[rows, inputs]`, result `[rows, outputs]`.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let (weight, bias) = (self.weight.val(), self.bias.as_ref().map(Param::val));
        match cpu::linear(&x, &weight, bias.as_ref()) {
            Some(out) => out,
            None => module::linear(x, weight, bias),
        }
    }
}

/// Root-mean-square normalisation.
#[derive(Module, Debug)]
pub(crate) struct RmsNorm {
    weight: Param<Tensor<1>>,
    #[module(skip)]
    eps: f64,
}

impl RmsNorm {
    /// Creates a norm with scale `weight` `[hidden]`.
    pub(crate) fn new(weight: Tensor<1>, eps: f64) -> Self {
        Self {
            weight: Param::from_tensor(weight),
            eps,
        }
    }

    /// # Shapes
    /// `x` and the result `[rows, hidden]`.
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        normed(x, self.weight.val(), self.eps)
    }
}

/// Root-mean-square normalisation with scale `weight`.
fn normed(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    match cpu::rms_norm(&x, &weight, eps) {
        Some(out) => out,
        None => rms_norm(x, weight, eps),
    }
}

/// Like [`cpu::rms_norm`], but with Burn's operations.
pub(super) fn rms_norm(x: Tensor<2>, weight: Tensor<1>, eps: f64) -> Tensor<2> {
    let mean_square = x.clone().square().mean_dim(1);
    let scale = (mean_square + eps).sqrt().recip();
    x * scale * weight.unsqueeze()
}

/// Layer normalisation.
#[derive(Module, Debug)]
pub(crate) struct LayerNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    #[module(skip)]
    eps: f64,
}

impl LayerNorm {
    /// Creates a norm with scale `weight` and offset `bias`, both `[hidden]`.
    #[must_use]
    pub(crate) fn new(weight: Tensor<1>, bias: Tensor<1>, eps: f64) -> Self {
        Self {
            weight: Param::from_tensor(weight),
            bias: Param::from_tensor(bias),
            eps,
        }
    }

    /// # Shapes
    /// `x` and the result `[rows, hidden]`.
    #[must_use]
    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        // After subtracting the mean, layer normalisation divides by the root mean square.
        let mean = x.clone().mean_dim(1);
        let normed = normed(x - mean, self.weight.val(), self.eps);
        normed + self.bias.val().unsqueeze()
    }
}
