//! Linear layers: `out[rows, outputs] = x[rows, inputs] · weight[outputs, inputs]ᵀ + bias`.

use crate::isa::Isa;
use crate::weight::{LinearShape, Weight};

/// See [`crate::Kernels::linear`].
pub(crate) fn run(
    _isa: Isa,
    x: &[f32],
    weight: Weight<'_>,
    bias: Option<&[f32]>,
    out: &mut [f32],
    shape: LinearShape,
) {
    let LinearShape {
        rows,
        inputs,
        outputs,
    } = shape;
    assert_eq!(x.len(), rows * inputs, "linear: `x` must be [rows, inputs]");
    assert_eq!(
        weight.len(),
        outputs * inputs,
        "linear: `weight` must be [outputs, inputs]"
    );
    assert_eq!(
        out.len(),
        rows * outputs,
        "linear: `out` must be [rows, outputs]"
    );
    if let Some(bias) = bias {
        assert_eq!(bias.len(), outputs, "linear: `bias` must be [outputs]");
    }
    let load = |index: usize| match weight {
        Weight::F32(values) => values[index],
        Weight::Bf16(values) => values[index].to_f32(),
        Weight::F16(values) => values[index].to_f32(),
    };
    for row in 0..rows {
        for output in 0..outputs {
            let mut sum = 0.0;
            for input in 0..inputs {
                sum += x[row * inputs + input] * load(output * inputs + input);
            }
            out[row * outputs + output] = sum + bias.map_or(0.0, |bias| bias[output]);
        }
    }
}
