//! Normalisation layers.

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};

use super::cpu;
use crate::weights::Weights;

/// Root-mean-square normalisation as in Llama, computed in f32 and scaled in the input's type.
#[derive(Module, Debug)]
pub(crate) struct RmsNorm {
    weight: Param<Tensor<1>>,
    #[module(skip)]
    eps: f64,
}

impl RmsNorm {
    /// Takes `weight` `[hidden]` from `weights`.
    pub(crate) fn load(weights: &Weights<'_>, hidden: usize, eps: f64) -> Self {
        Self {
            weight: Param::from_tensor(weights.vector("weight", [hidden])),
            eps,
        }
    }

    #[cfg(any(feature = "flex", feature = "cube"))]
    pub(super) fn weight(&self) -> Tensor<1> {
        self.weight.val()
    }

    #[cfg(any(feature = "flex", feature = "cube"))]
    pub(super) fn eps(&self) -> f64 {
        self.eps
    }

    /// Applies the norm.
    ///
    /// # Shapes
    /// `x` and the result `[..., hidden]`.
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let weight = self.weight.val();
        cpu::rms_norm(&x, &weight, self.eps).unwrap_or_else(|| {
            let dtype = x.dtype();
            let wide = Tensor::<D>::cast(x, DType::F32);
            let mean_square = wide.clone().powi_scalar(2).mean_dim(D - 1);
            let normal = wide / (mean_square + self.eps).sqrt();
            Tensor::<D>::cast(normal, dtype) * weight.unsqueeze()
        })
    }
}

/// Layer normalisation with scale and shift, as in CLIP.
#[derive(Module, Debug)]
pub(crate) struct LayerNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    #[module(skip)]
    eps: f64,
}

impl LayerNorm {
    /// Takes `weight` and `bias` `[hidden]` from `weights`.
    pub(crate) fn load(weights: &Weights<'_>, hidden: usize, eps: f64) -> Self {
        Self {
            weight: Param::from_tensor(weights.vector("weight", [hidden])),
            bias: Param::from_tensor(weights.vector("bias", [hidden])),
            eps,
        }
    }

    /// Applies the norm.
    ///
    /// # Shapes
    /// `x` and the result `[..., hidden]`.
    pub(crate) fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let dtype = x.dtype();
        let wide = Tensor::<D>::cast(x, DType::F32);
        let centred = wide.clone() - wide.mean_dim(D - 1);
        let variance = centred.clone().powi_scalar(2).mean_dim(D - 1);
        let normal = Tensor::<D>::cast(centred / (variance + self.eps).sqrt(), dtype);
        normal * self.weight.val().unsqueeze() + self.bias.val().unsqueeze()
    }
}
