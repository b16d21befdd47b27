//! Conversions between recorded tensors of automatic differentiation and floats in host memory.

use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::ops::{Backward, NodeGuard, OpsKind};
use burn::backend::{Autodiff, Flex};
use burn::tensor::{DType, Tensor, TensorData};
use burn_flex::FlexTensor;

/// Contiguous floats. Clones share memory.
#[derive(Debug, Clone)]
pub(super) struct Values(FlexTensor);

impl Values {
    /// Returns the values of `tensor` if they are f32; copies them if they are not contiguous.
    fn new(tensor: FlexTensor) -> Option<Self> {
        let tensor = match tensor.as_slice::<f32>() {
            Some(_) => tensor,
            None if tensor.dtype() == DType::F32 => tensor.to_contiguous(),
            None => return None,
        };
        Some(Self(tensor))
    }

    /// Returns the values of a gradient, which are f32 because its output is.
    pub(super) fn of_gradient(gradient: FlexTensor) -> Self {
        Self::new(gradient).expect("gradients are f32")
    }

    pub(super) fn floats(&self) -> &[f32] {
        let floats = self.0.as_slice::<f32>();
        floats.expect("contiguous, by construction")
    }
}

/// An input of an operation.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) values: Values,
    pub(super) node: NodeGuard,
}

impl Input {
    /// Returns `None` unless `tensor` is f32 and recorded on the CPU backend.
    pub(super) fn new<const D: usize>(tensor: &Tensor<D>) -> Option<Self> {
        let recorded = tensor.clone().try_into_primitive::<Autodiff<Flex>>().ok()?;
        let (primitive, node) = recorded.into_parts();
        let values = Values::new(primitive)?;
        Some(Self { values, node })
    }
}

/// Creates a tensor from `values`.
pub(super) fn tensor<const D: usize>(values: Vec<f32>, shape: [usize; D]) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape))
}

/// Records `out` as the result of `operation` on the inputs `nodes`.
pub(super) fn record<O: Backward<Flex, N>, const N: usize, const D: usize>(
    operation: O,
    nodes: [NodeGuard; N],
    state: O::State,
    out: FlexTensor,
) -> Tensor<D> {
    let prepared = operation.prepare::<NoCheckpointing>(nodes);
    let out = match prepared.compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(state, out),
        OpsKind::UnTracked(prepared) => prepared.finish(out),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(out)
}
