//! The bridge to `vispec-kernels`: tensors in, tensors out, no copies of what is contiguous.
//!
//! Each function returns `None` when the tensors do not live on the CPU backend, or are recorded
//! for automatic differentiation; the caller then uses Burn's operations.

#[cfg(feature = "flex")]
mod flex {
    use burn::backend::Flex;
    use burn::tensor::{DType, Tensor};
    use burn_flex::FlexTensor;
    use half::{bf16, f16};
    use vispec_kernels::{AttentionShape, GroupedLinear, KeyValues, VisibleRows, Weight};

    use crate::nn::attention::AttentionPlan;
    use crate::nn::linear::{Linear, LinearWeight, QuantizedMatrix};
    use crate::nn::rope::RotaryTable;

    /// The tensor as the backend holds it, contiguous.
    fn host<const D: usize>(tensor: &Tensor<D>) -> Option<FlexTensor> {
        let primitive = tensor.clone().try_into_primitive::<Flex>().ok()?;
        Some(if primitive.is_contiguous() {
            primitive
        } else {
            primitive.to_contiguous()
        })
    }

    /// The tensor as the backend holds it, contiguous and in f32.
    fn host_f32<const D: usize>(tensor: &Tensor<D>) -> Option<FlexTensor> {
        (tensor.dtype() == DType::F32)
            .then(|| host(tensor))
            .flatten()
    }

    fn floats(tensor: &FlexTensor) -> Option<&[f32]> {
        tensor.as_slice::<f32>()
    }

    /// A weight as the backend holds it.
    enum HostWeight<'l> {
        Dense(FlexTensor),
        Quantized(&'l QuantizedMatrix),
    }

    impl<'l> HostWeight<'l> {
        fn of(layer: &'l Linear) -> Option<Self> {
            Some(match layer.weight() {
                LinearWeight::Dense(weight) => Self::Dense(host(&weight.val())?),
                LinearWeight::Quantized(weight) => Self::Quantized(weight),
            })
        }

        fn borrow(&self) -> Option<Weight<'_>> {
            match self {
                Self::Quantized(weight) => Some(weight.weight().borrow()),
                Self::Dense(weight) => match weight.dtype() {
                    DType::F32 => weight.as_slice::<f32>().map(Weight::F32),
                    DType::BF16 => weight.as_slice::<bf16>().map(Weight::Bf16),
                    DType::F16 => weight.as_slice::<f16>().map(Weight::F16),
                    _ => None,
                },
            }
        }
    }

    /// Layers on the same `x` `[rows, inputs]`.
    pub(in crate::nn) fn linear<const N: usize>(
        x: &Tensor<2>,
        layers: [&Linear; N],
    ) -> Option<[Tensor<2>; N]> {
        let [rows, inputs] = x.dims();
        let x = host_f32(x)?;
        let mut parts = Vec::with_capacity(N);
        for layer in layers {
            let bias = match layer.bias() {
                Some(bias) => Some(host_f32(&bias)?),
                None => None,
            };
            let out = FlexTensor::empty([rows, layer.n_outputs()].into(), DType::F32);
            parts.push((HostWeight::of(layer)?, bias, out));
        }
        let mut calls = Vec::with_capacity(N);
        for ((weight, bias, out), layer) in parts.iter_mut().zip(layers) {
            calls.push(GroupedLinear {
                weight: weight.borrow()?,
                bias: match bias {
                    Some(bias) => Some(floats(bias)?),
                    None => None,
                },
                out: out.storage_mut::<f32>(),
                outputs: layer.n_outputs(),
            });
        }
        vispec_kernels::linear_group(floats(&x)?, rows, inputs, &mut calls);
        let mut outs = parts
            .into_iter()
            .map(|(_, _, out)| Tensor::from_primitive::<Flex>(out));
        Some([(); N].map(|()| outs.next().expect("one result for each layer")))
    }

    /// Copies `rows` `[rows, heads * head_dim]` behind the first `len` rows of each head of `cache`
    /// `[1, heads, capacity, head_dim]`; gives the cache back if it is not of this backend.
    pub(in crate::nn) fn append_rows(
        cache: Tensor<4>,
        rows: &Tensor<2>,
        len: usize,
    ) -> Result<Tensor<4>, Tensor<4>> {
        let [_, heads, capacity, head_dim] = cache.dims();
        let Some(new) = host_f32(rows).filter(|_| cache.dtype() == DType::F32) else {
            return Err(cache);
        };
        // Consumed, so that the write finds a unique owner and copies nothing.
        let Ok(mut held) = cache.try_into_primitive::<Flex>() else {
            unreachable!("the rows of a cache live where the cache does")
        };
        let (out, rows) = (held.storage_mut::<f32>(), floats(&new).unwrap_or(&[]));
        for (row_idx, row) in rows.chunks_exact(heads * head_dim).enumerate() {
            for (head, values) in row.chunks_exact(head_dim).enumerate() {
                let at = (head * capacity + len + row_idx) * head_dim;
                out[at..at + head_dim].copy_from_slice(values);
            }
        }
        Ok(Tensor::from_primitive::<Flex>(held))
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

    /// Attention of `query` `[rows, heads * head_dim]` over a cache `[1, kv_heads, capacity,
    /// head_dim]`; gives `[rows, heads * head_dim]`.
    pub(in crate::nn) fn attention(
        query: &Tensor<2>,
        keys: &Tensor<4>,
        values: &Tensor<4>,
        head_dim: usize,
        plan: &AttentionPlan,
    ) -> Option<Tensor<2>> {
        let [rows, width] = query.dims();
        let [_, kv_heads, cache_stride, _] = keys.dims();
        let (query, keys, values) = (host_f32(query)?, host(keys)?, host(values)?);
        let cache = match keys.dtype() {
            DType::F32 => KeyValues::F32 {
                keys: floats(&keys)?,
                values: floats(&values)?,
            },
            _ => return None,
        };
        let visible = match plan {
            AttentionPlan::Causal { .. } => VisibleRows::Causal,
            AttentionPlan::Tree(plan) => {
                let (offsets, rows) = plan.lists();
                VisibleRows::Lists { offsets, rows }
            }
        };
        let mut out = FlexTensor::empty([rows, width].into(), DType::F32);
        let shape = AttentionShape {
            rows,
            heads: width / head_dim,
            kv_heads,
            head_dim,
            cache_stride,
            prefix: plan.prefix(),
            scale: crate::nn::attention::scale(head_dim),
        };
        vispec_kernels::attention(
            floats(&query)?,
            cache,
            visible,
            out.storage_mut::<f32>(),
            shape,
        );
        Some(Tensor::from_primitive::<Flex>(out))
    }
}

#[cfg(feature = "flex")]
pub(super) use flex::{append_rows, attention, linear, rms_norm, rotary, silu_mul};

#[cfg(not(feature = "flex"))]
mod absent {
    use burn::tensor::Tensor;

    use crate::nn::attention::AttentionPlan;
    use crate::nn::linear::Linear;
    use crate::nn::rope::RotaryTable;

    pub(in crate::nn) fn linear<const N: usize>(
        _x: &Tensor<2>,
        _layers: [&Linear; N],
    ) -> Option<[Tensor<2>; N]> {
        None
    }

    pub(in crate::nn) fn append_rows(
        cache: Tensor<4>,
        _rows: &Tensor<2>,
        _len: usize,
    ) -> Result<Tensor<4>, Tensor<4>> {
        Err(cache)
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

    pub(in crate::nn) fn attention(
        _query: &Tensor<2>,
        _keys: &Tensor<4>,
        _values: &Tensor<4>,
        _head_dim: usize,
        _plan: &AttentionPlan,
    ) -> Option<Tensor<2>> {
        None
    }
}

#[cfg(not(feature = "flex"))]
pub(super) use absent::{append_rows, attention, linear, rms_norm, rotary, silu_mul};
