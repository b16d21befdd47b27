//! The bridge to `vispec-kernels`: functions from tensors to tensors that do not copy contiguous
//! tensors.
//!
//! Each function returns `None` if the tensors are not on the CPU backend or are tracked for
//! automatic differentiation. The caller then uses Burn's operations.

#[cfg(feature = "flex")]
mod flex {
    use burn::backend::Flex;
    use burn::tensor::{DType, Tensor};
    use burn_flex::FlexTensor;
    use vispec_kernels::GroupedLinear;

    use crate::nn::host::{HostLinear, host_f32};
    use crate::nn::linear::Linear;
    use crate::nn::rope::RotaryTable;

    fn floats(tensor: &FlexTensor) -> Option<&[f32]> {
        tensor.as_slice::<f32>()
    }

    /// Applies several layers to the same `x` `[rows, inputs]`.
    pub(in crate::nn) fn linear<const N: usize>(
        x: &Tensor<2>,
        layers: [&Linear; N],
    ) -> Option<[Tensor<2>; N]> {
        let [rows, inputs] = x.dims();
        let x = host_f32(x)?;
        let mut parts = Vec::with_capacity(N);
        for layer in layers {
            let layer = HostLinear::new(layer)?;
            let out = FlexTensor::empty([rows, layer.n_outputs()].into(), DType::F32);
            parts.push((layer, out));
        }
        let mut calls: Vec<_> = parts
            .iter_mut()
            .map(|(layer, out)| GroupedLinear {
                weight: layer.weight(),
                bias: layer.bias(),
                out: out.storage_mut::<f32>(),
                outputs: layer.n_outputs(),
            })
            .collect();
        vispec_kernels::linear_group(floats(&x)?, rows, inputs, &mut calls);
        let mut outs = parts
            .into_iter()
            .map(|(_, out)| Tensor::from_primitive::<Flex>(out));
        Some([(); N].map(|()| outs.next().expect("one result for each layer")))
    }

    pub(in crate::nn) fn rms_norm<const D: usize>(
        x: &Tensor<D>,
        weight: &Tensor<1>,
        eps: f64,
    ) -> Option<Tensor<D>> {
        let (values, weight) = (host_f32(x)?, host_f32(weight)?);
        let mut out = FlexTensor::empty(x.shape(), DType::F32);
        #[expect(clippy::cast_possible_truncation, reason = "the kernel works in f32")]
        let eps = eps as f32;
        vispec_kernels::rms_norm(
            floats(&values)?,
            floats(&weight)?,
            eps,
            out.storage_mut::<f32>(),
        );
        Some(Tensor::from_primitive::<Flex>(out))
    }

    pub(in crate::nn) fn silu_mul<const D: usize>(
        gate: &Tensor<D>,
        up: &Tensor<D>,
    ) -> Option<Tensor<D>> {
        let (gate_values, up_values) = (host_f32(gate)?, host_f32(up)?);
        let mut out = FlexTensor::empty(gate.shape(), DType::F32);
        vispec_kernels::silu_mul(
            floats(&gate_values)?,
            floats(&up_values)?,
            out.storage_mut::<f32>(),
        );
        Some(Tensor::from_primitive::<Flex>(out))
    }

    /// Rotates `x` `[rows, heads * head_dim]`.
    pub(in crate::nn) fn rotary(x: &Tensor<2>, table: &RotaryTable) -> Option<Tensor<2>> {
        let mut values = x.clone().try_into_primitive::<Flex>().ok()?;
        if values.dtype() != DType::F32 {
            return None;
        }
        if !values.is_contiguous() || values.layout().start_offset() != 0 {
            values = values.to_contiguous();
        }
        let (cos, sin) = table.host();
        vispec_kernels::rotary(values.storage_mut::<f32>(), cos, sin, table.head_dim());
        Some(Tensor::from_primitive::<Flex>(values))
    }
}

#[cfg(feature = "flex")]
pub(super) use flex::{linear, rms_norm, rotary, silu_mul};

#[cfg(not(feature = "flex"))]
mod absent {
    use burn::tensor::Tensor;

    use crate::nn::linear::Linear;
    use crate::nn::rope::RotaryTable;

    pub(in crate::nn) fn linear<const N: usize>(
        _x: &Tensor<2>,
        _layers: [&Linear; N],
    ) -> Option<[Tensor<2>; N]> {
        None
    }

    pub(in crate::nn) fn rms_norm<const D: usize>(
        _x: &Tensor<D>,
        _weight: &Tensor<1>,
        _eps: f64,
    ) -> Option<Tensor<D>> {
        None
    }

    pub(in crate::nn) fn silu_mul<const D: usize>(
        _gate: &Tensor<D>,
        _up: &Tensor<D>,
    ) -> Option<Tensor<D>> {
        None
    }

    pub(in crate::nn) fn rotary(_x: &Tensor<2>, _table: &RotaryTable) -> Option<Tensor<2>> {
        None
    }
}

#[cfg(not(feature = "flex"))]
pub(super) use absent::{linear, rms_norm, rotary, silu_mul};
