//! The weights of a layer, used in place.

use burn::backend::Flex;
use burn::tensor::{DType, Tensor};
use burn_flex::FlexTensor;
use half::{bf16, f16};
use vispec_kernels::Weight;

use crate::nn::decoder::DecoderLayer;
use crate::nn::linear::{Linear, LinearWeight, QuantizedMatrix};
use crate::nn::norm::RmsNorm;

/// Returns the backend's tensor, made contiguous, or `None` if it is on another device.
pub(in crate::nn) fn host<const D: usize>(tensor: &Tensor<D>) -> Option<FlexTensor> {
    let primitive = tensor.clone().try_into_primitive::<Flex>().ok()?;
    Some(if primitive.is_contiguous() {
        primitive
    } else {
        primitive.to_contiguous()
    })
}

/// Like [`host`], but also returns `None` unless the tensor is in f32.
pub(in crate::nn) fn host_f32<const D: usize>(tensor: &Tensor<D>) -> Option<FlexTensor> {
    (tensor.dtype() == DType::F32)
        .then(|| host(tensor))
        .flatten()
}

/// A linear layer. It shares the tensors of the module from which it was created.
#[derive(Debug, Clone)]
pub(in crate::nn) struct HostLinear {
    weight: HostWeight,
    bias: Option<FlexTensor>,
    n_outputs: usize,
}

#[derive(Debug, Clone)]
enum HostWeight {
    /// In f32, bf16 or f16.
    Dense(FlexTensor),
    Quantized(QuantizedMatrix),
}

impl HostLinear {
    /// Wraps a layer, or returns `None` if its weights are on another device.
    pub(in crate::nn) fn new(layer: &Linear) -> Option<Self> {
        let weight = match layer.weight() {
            LinearWeight::Dense(weight) => {
                let weight = weight.val();
                let known = matches!(weight.dtype(), DType::F32 | DType::BF16 | DType::F16);
                HostWeight::Dense(host(&weight).filter(|_| known)?)
            }
            LinearWeight::Quantized(weight) => HostWeight::Quantized(weight.clone()),
        };
        let bias = match layer.bias() {
            Some(bias) => Some(host_f32(&bias)?),
            None => None,
        };
        Some(Self {
            weight,
            bias,
            n_outputs: layer.n_outputs(),
        })
    }

    pub(in crate::nn) fn weight(&self) -> Weight<'_> {
        match &self.weight {
            HostWeight::Quantized(weight) => weight.weight().borrow(),
            HostWeight::Dense(weight) => match weight.dtype() {
                DType::BF16 => Weight::Bf16(weight.as_slice::<bf16>().unwrap_or_default()),
                DType::F16 => Weight::F16(weight.as_slice::<f16>().unwrap_or_default()),
                _ => Weight::F32(weight.as_slice::<f32>().unwrap_or_default()),
            },
        }
    }

    pub(in crate::nn) fn bias(&self) -> Option<&[f32]> {
        self.bias.as_ref().and_then(FlexTensor::as_slice::<f32>)
    }

    pub(in crate::nn) fn n_outputs(&self) -> usize {
        self.n_outputs
    }
}

/// A root-mean-square norm.
#[derive(Debug, Clone)]
pub(super) struct HostNorm {
    weight: FlexTensor,
    eps: f32,
}

impl HostNorm {
    fn new(norm: &RmsNorm) -> Option<Self> {
        #[expect(clippy::cast_possible_truncation, reason = "the kernel works in f32")]
        let eps = norm.eps() as f32;
        let weight = host_f32(&norm.weight())?;
        Some(Self { weight, eps })
    }

    /// Normalises `x` into `out`, both `[rows, hidden]`.
    pub(super) fn apply(&self, x: &[f32], out: &mut [f32]) {
        let weight = self.weight.as_slice::<f32>().unwrap_or_default();
        vispec_kernels::rms_norm(x, weight, self.eps, out);
    }
}

/// The weights of a [`DecoderLayer`].
#[derive(Debug, Clone)]
pub(super) struct HostLayer {
    pub(super) input_norm: Option<HostNorm>,
    pub(super) query: HostLinear,
    pub(super) key: HostLinear,
    pub(super) value: HostLinear,
    pub(super) output: HostLinear,
    /// Norms of queries and keys.
    pub(super) qk_norms: Option<[HostNorm; 2]>,
    pub(super) post_norm: HostNorm,
    pub(super) gate: HostLinear,
    pub(super) up: HostLinear,
    pub(super) down: HostLinear,
}

impl HostLayer {
    pub(super) fn new(layer: &DecoderLayer) -> Option<Self> {
        let input_norm = match layer.input_norm() {
            Some(norm) => Some(HostNorm::new(norm)?),
            None => None,
        };
        let [query, key, value, output] = layer.attention().projections();
        let [gate, up, down] = layer.mlp().projections();
        Some(Self {
            input_norm,
            query: HostLinear::new(query)?,
            key: HostLinear::new(key)?,
            value: HostLinear::new(value)?,
            output: HostLinear::new(output)?,
            qk_norms: match layer.attention().norms() {
                [Some(query), Some(key)] => Some([HostNorm::new(query)?, HostNorm::new(key)?]),
                _ => None,
            },
            post_norm: HostNorm::new(layer.post_norm())?,
            gate: HostLinear::new(gate)?,
            up: HostLinear::new(up)?,
            down: HostLinear::new(down)?,
        })
    }
}
