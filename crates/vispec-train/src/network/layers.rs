//! Layers whose parameters are recorded for automatic differentiation.

use burn::module::{Module, Param};
use burn::tensor::{Tensor, module};

use super::cpu;

/// `y = x W + b`.
///
/// The weight is held as `[inputs, outputs]`, the transpose of what checkpoints have: products
/// with it are fast on the CPU only if its rows are contiguous.
#[derive(Module, Debug)]
pub(crate) struct Linear {
    weight: Param<Tensor<2>>,
    bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// A layer made of `weight` `[inputs, outputs]` and `bias` `[outputs]`.
    #[must_use]
    pub(crate) fn new(weight: Tensor<2>, bias: Option<Tensor<1>>) -> Self {
        Self {
            weight: Param::from_tensor(weight),
            bias: bias.map(Param::from_tensor),
        }
    }

    /// # Shapes
    /// `x` `[rows, inputs]`, result `[rows, outputs]`.
    #[must_use]
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
    /// A norm with scale `weight` `[hidden]`.
    #[must_use]
    pub(crate) fn new(weight: Tensor<1>, eps: f64) -> Self {
        Self {
            weight: Param::from_tensor(weight),
            eps,
        }
    }

    /// # Shapes
    /// `x` and the result `[rows, hidden]`.
    #[must_use]
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

/// [`cpu::rms_norm`] by Burn's operations.
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
    /// A norm with scale `weight` and offset `bias`, both `[hidden]`.
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
        // Without its mean, a row is normed by its root mean square.
        let mean = x.clone().mean_dim(1);
        let normed = normed(x - mean, self.weight.val(), self.eps);
        normed + self.bias.val().unsqueeze()
    }
}
