//! Weights as stored in the checkpoint, and the shape of a linear layer.

use half::{bf16, f16};

use crate::panel::QuantizedPanels;

/// Row-major `[outputs, inputs]` weight, borrowed as stored in the checkpoint.
///
/// It can be borrowed from a memory map at any offset that is aligned for the element type.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Weight<'a> {
    /// 32-bit floats.
    F32(&'a [f32]),
    /// bfloat16.
    Bf16(&'a [bf16]),
    /// IEEE half precision.
    F16(&'a [f16]),
    /// Bytes or nibbles, times a scale per group.
    Quantized(QuantizedPanels<'a>),
}

impl Weight<'_> {
    /// Returns the number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::F16(values) => values.len(),
            Self::Quantized(panels) => panels.layout.outputs * panels.layout.inputs,
        }
    }

    /// Returns `true` if there are no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of bytes read to use the whole weight once.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::F32(values) => size_of_val(*values),
            Self::Bf16(values) => size_of_val(*values),
            Self::F16(values) => size_of_val(*values),
            Self::Quantized(QuantizedPanels { values, scales, .. }) => {
                size_of_val(*values) + size_of_val(*scales)
            }
        }
    }
}

/// Axes of `x[rows, inputs]`, `weight[outputs, inputs]` and `out[rows, outputs]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinearShape {
    /// Rows of `x`: tokens or tree nodes.
    pub rows: usize,
    /// Length of a row of `x` and of a row of the weight.
    pub inputs: usize,
    /// Rows of the weight.
    pub outputs: usize,
}

/// One of several layers applied to the same rows; see [`crate::Kernels::linear_group`].
#[derive(Debug)]
pub struct GroupedLinear<'a> {
    /// `[outputs, inputs]`.
    pub weight: Weight<'a>,
    /// `[outputs]`.
    pub bias: Option<&'a [f32]>,
    /// `[rows, outputs]`.
    pub out: &'a mut [f32],
    /// Rows of the weight.
    pub outputs: usize,
}
