//! Differentiable operations on the kernels of `vispec-kernels`. Each is one node of the graph,
//! with its own backward pass.
//!
//! Each function returns `None` unless its tensors are f32 and recorded for automatic
//! differentiation on the CPU backend. The caller then uses Burn's operations, against which the
//! tests compare.

#[cfg(feature = "flex")]
mod attention;
#[cfg(feature = "flex")]
mod linear;
#[cfg(feature = "flex")]
mod pointwise;
#[cfg(feature = "flex")]
mod record;

#[cfg(feature = "flex")]
pub(super) use attention::{attend, rotate};
#[cfg(feature = "flex")]
pub(super) use linear::linear;
#[cfg(feature = "flex")]
pub(super) use pointwise::{rms_norm, silu_mul};

#[cfg(not(feature = "flex"))]
mod absent {
    use std::sync::Arc;

    use burn::tensor::Tensor;
    use vispec_kernels::CausalSample;
    use vispec_models::nn::DecoderConfig;

    use crate::network::attention::{Angles, Projected};

    pub(in crate::network) fn attend(
        _queries: &Tensor<2>,
        _rows: &Projected,
        _own: &[Projected],
        _samples: &[CausalSample],
        _config: &DecoderConfig,
    ) -> Option<Tensor<2>> {
        None
    }

    pub(in crate::network) fn rotate(
        _x: &Tensor<2>,
        _angles: &Arc<Angles>,
        _head_dim: usize,
    ) -> Option<Tensor<2>> {
        None
    }

    pub(in crate::network) fn linear(
        _x: &Tensor<2>,
        _weight: &Tensor<2>,
        _bias: Option<&Tensor<1>>,
    ) -> Option<Tensor<2>> {
        None
    }

    pub(in crate::network) fn rms_norm(
        _x: &Tensor<2>,
        _weight: &Tensor<1>,
        _eps: f64,
    ) -> Option<Tensor<2>> {
        None
    }

    pub(in crate::network) fn silu_mul(_gate: &Tensor<2>, _up: &Tensor<2>) -> Option<Tensor<2>> {
        None
    }
}

#[cfg(not(feature = "flex"))]
pub(super) use absent::{attend, linear, rms_norm, rotate, silu_mul};

#[cfg(all(test, feature = "flex"))]
mod tests;
