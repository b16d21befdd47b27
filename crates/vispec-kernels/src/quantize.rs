//! Weight-only quantisation to 8 or 4 bits, with a scale for each group of inputs.

use std::fmt;

use half::bf16;
use rayon::prelude::*;

use crate::panel::{Bits, INTEGERS, Layout, PANEL, QuantizedPanels};
use crate::scratch::Line;
use crate::weight::Weight;

/// Group sizes are multiples of this number.
pub(crate) const GROUP_STEP: usize = 32;

/// Error from quantising a weight, or from assembling a quantised weight from parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QuantizeError {
    /// The group size is not a multiple of 32, or does not divide the number of inputs.
    Group {
        /// Number of weights that share a scale.
        group: usize,
        /// Number of weights per output.
        inputs: usize,
    },
    /// The number of weights does not match the shape.
    Length {
        /// The number that the shape requires.
        expected: usize,
        /// The number found.
        found: usize,
    },
    /// A weight is not finite.
    NonFinite {
        /// Row of the weight.
        output: usize,
    },
    /// The weight is already quantised.
    Quantized,
}

impl fmt::Display for QuantizeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group { group, inputs } => write!(
                f,
                "a group of {group} weights must be a multiple of {GROUP_STEP} and divide the \
                 {inputs} inputs"
            ),
            Self::Length { expected, found } => {
                write!(f, "expected {expected} elements, found {found}")
            }
            Self::NonFinite { output } => {
                write!(f, "row {output} holds a weight that is not finite")
            }
            Self::Quantized => write!(f, "the weight is already quantised"),
        }
    }
}

impl std::error::Error for QuantizeError {}

/// A quantised `[outputs, inputs]` weight that owns its memory.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedWeight {
    values: Vec<Line>,
    scales: Vec<bf16>,
    layout: Layout,
}

impl QuantizedWeight {
    /// Quantises a weight, panels in parallel. Weights are divided by scales that are already
    /// rounded to bf16, so the rounding of scales adds no error.
    ///
    /// # Shapes
    /// `weight[outputs, inputs]`, in groups of `group` inputs.
    ///
    /// # Errors
    /// If the group size does not fit the inputs, the length does not match the shape, a weight is
    /// not finite, or the weight is already quantised.
    pub fn new(
        weight: Weight<'_>,
        inputs: usize,
        group: usize,
        bits: Bits,
    ) -> Result<Self, QuantizeError> {
        check_group(group, inputs)?;
        let len = weight.len();
        if !len.is_multiple_of(inputs) {
            let expected = len.next_multiple_of(inputs);
            return Err(QuantizeError::Length {
                expected,
                found: len,
            });
        }
        let layout = Layout {
            outputs: len / inputs,
            inputs,
            group,
            bits,
        };
        let mut values = vec![Line([0; 64]); layout.lines()];
        let mut scales = vec![bf16::ZERO; layout.scales()];
        let panels = values
            .par_chunks_mut(layout.panel_lines())
            .zip(scales.par_chunks_mut(layout.panel_scales()))
            .enumerate();
        panels.try_for_each(|(panel, (values, scales))| {
            let mut unsigned = vec![0_u8; inputs];
            for row in 0..PANEL.min(layout.outputs - panel * PANEL) {
                let weights = widen(weight, panel * PANEL + row, inputs)?;
                let groups = weights.chunks(group).zip(unsigned.chunks_mut(group));
                for (index, (weights, unsigned)) in groups.enumerate() {
                    scales[index * PANEL + row] = round(weights, bits, unsigned);
                }
                layout.put(values, row, &unsigned);
            }
            Ok(())
        })?;
        Ok(Self {
            values,
            scales,
            layout,
        })
    }

    /// Assembles a weight from the results of [`value_bytes`](Self::value_bytes) and
    /// [`scales`](Self::scales).
    ///
    /// # Errors
    /// If the group size does not fit the inputs, or the lengths do not match the shape.
    pub fn from_parts(
        values: &[u8],
        scales: Vec<bf16>,
        [outputs, inputs]: [usize; 2],
        (group, bits): (usize, Bits),
    ) -> Result<Self, QuantizeError> {
        check_group(group, inputs)?;
        let layout = Layout {
            outputs,
            inputs,
            group,
            bits,
        };
        for (expected, found) in [
            (layout.lines() * size_of::<Line>(), values.len()),
            (layout.scales(), scales.len()),
        ] {
            if found != expected {
                return Err(QuantizeError::Length { expected, found });
            }
        }
        let (lines, _) = values.as_chunks();
        Ok(Self {
            values: lines.iter().map(|line| Line(*line)).collect(),
            scales,
            layout,
        })
    }

    /// Returns the weights as bytes, in a format private to this crate.
    #[must_use]
    pub fn value_bytes(&self) -> &[u8] {
        Line::bytes(&self.values)
    }

    /// Returns the scales, in a format private to this crate.
    #[must_use]
    pub fn scales(&self) -> &[bf16] {
        &self.scales
    }

    /// Returns the weights that the quantised ones represent: `[outputs, inputs]`.
    #[must_use]
    pub fn to_f32(&self) -> Vec<f32> {
        let layout = self.layout;
        let weight = |output: usize, input: usize| {
            let panel = &self.values[output / PANEL * layout.panel_lines()..];
            let scales = &self.scales[output / PANEL * layout.panel_scales()..];
            let scale = scales[input / layout.group * PANEL + output % PANEL];
            layout.get(panel, output % PANEL, input) * scale.to_f32()
        };
        (0..layout.outputs)
            .flat_map(|output| (0..layout.inputs).map(move |input| weight(output, input)))
            .collect()
    }

    /// Returns a weight with only the given rows, in this order.
    ///
    /// # Panics
    /// If a row is out of range.
    #[must_use]
    pub fn select_outputs(&self, outputs: &[u32]) -> Self {
        let from = self.layout;
        let to = Layout {
            outputs: outputs.len(),
            ..from
        };
        let mut values = vec![Line([0; 64]); to.lines()];
        let mut scales = vec![bf16::ZERO; to.scales()];
        for (new, &old) in outputs.iter().enumerate() {
            let old = old as usize;
            assert!(old < from.outputs, "no row {old} in {} rows", from.outputs);
            let own = |place: usize| 4 * (place % PANEL)..4 * (place % PANEL) + 4;
            let lines = values[new / PANEL * to.panel_lines()..].iter_mut();
            for (to, from) in lines
                .zip(&self.values[old / PANEL * from.panel_lines()..])
                .take(to.panel_lines())
            {
                to.0[own(new)].copy_from_slice(&from.0[own(old)]);
            }
            for group in 0..from.inputs / from.group {
                let place = |row: usize| row / PANEL * to.panel_scales() + group * PANEL;
                scales[place(new) + new % PANEL] = self.scales[place(old) + old % PANEL];
            }
        }
        Self {
            values,
            scales,
            layout: to,
        }
    }

    /// Borrows the weight, for use with [`crate::linear()`].
    #[must_use]
    pub fn borrow(&self) -> Weight<'_> {
        Weight::Quantized(QuantizedPanels {
            values: &self.values,
            scales: &self.scales,
            layout: self.layout,
        })
    }
}

/// Checks that a group of weights can share a scale.
///
/// # Errors
/// If the group size is not a multiple of 32 or does not divide the number of inputs.
pub fn check_group(group: usize, inputs: usize) -> Result<(), QuantizeError> {
    let fits =
        group > 0 && inputs > 0 && group.is_multiple_of(GROUP_STEP) && inputs.is_multiple_of(group);
    if fits {
        Ok(())
    } else {
        Err(QuantizeError::Group { group, inputs })
    }
}

/// Returns a row in 32 bits.
fn widen(weight: Weight<'_>, row: usize, inputs: usize) -> Result<Vec<f32>, QuantizeError> {
    let range = row * inputs..(row + 1) * inputs;
    let row_values: Vec<f32> = match weight {
        Weight::F32(values) => values[range].to_vec(),
        Weight::Bf16(values) => values[range].iter().map(|value| value.to_f32()).collect(),
        Weight::F16(values) => values[range].iter().map(|value| value.to_f32()).collect(),
        Weight::Quantized(_) => return Err(QuantizeError::Quantized),
    };
    if row_values.iter().all(|value| value.is_finite()) {
        Ok(row_values)
    } else {
        Err(QuantizeError::NonFinite { output: row })
    }
}

/// Rounds a group to -127..=127, or to -8..=7 with the weight of the greatest magnitude at -8.
/// Writes the results plus [`Bits::offset`], and returns the scale.
fn round(weights: &[f32], bits: Bits, unsigned: &mut [u8]) -> bf16 {
    let greater = |a: f32, b: &f32| if b.abs() > a.abs() { *b } else { a };
    let greatest = weights.iter().fold(0.0_f32, greater);
    let (scale, [least, most]) = match bits {
        Bits::Eight => (greatest.abs() / 127.0, [-127.0, 127.0]),
        Bits::Four => (greatest / -8.0, [-8.0, 7.0]),
    };
    let scale = bf16::from_f32(scale);
    let inverse = inverse(scale);
    for (unsigned, weight) in unsigned.iter_mut().zip(weights) {
        let weight = (weight * inverse).clamp(least, most);
        // The nearest integer, ties to even, is in the lowest bits.
        *unsigned = (weight + INTEGERS + bits.offset()).to_bits() as u8;
    }
    scale
}

/// Returns the reciprocal of the scale, or zero for a group of zeros or of weights too small for a
/// scale.
fn inverse(scale: bf16) -> f32 {
    let inverse = 1.0 / scale.to_f32();
    if inverse.is_finite() { inverse } else { 0.0 }
}
