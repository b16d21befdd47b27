//! Weight-only quantisation to 8 or 4 bits, with a scale for each group of inputs.

use std::fmt;

use half::bf16;
use rayon::prelude::*;

use crate::weight::Weight;

/// Group sizes are multiples of this.
pub const GROUP_STEP: usize = 32;

/// Width of a quantised weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bits {
    /// Signed bytes from -127 to 127.
    Eight,
    /// Nibbles that stand for -8 to 7.
    Four,
}

/// Why a weight cannot be quantised, or parts do not make up a quantised weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum QuantizeError {
    /// The group is no multiple of [`GROUP_STEP`], or does not divide the inputs.
    Group {
        /// Weights that share a scale.
        group: usize,
        /// Weights per output.
        inputs: usize,
    },
    /// The number of weights is not that of the shape.
    Length {
        /// What the shape asks for.
        expected: usize,
        /// What there is.
        found: usize,
    },
    /// A weight is not finite.
    NonFinite {
        /// Row of the weight.
        output: usize,
    },
    /// The weight is quantised already.
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
            Self::Quantized => write!(f, "the weight is quantised already"),
        }
    }
}

impl std::error::Error for QuantizeError {}

/// A quantised `[outputs, inputs]` weight that owns its memory.
#[derive(Clone, Debug, PartialEq)]
pub struct QuantizedWeight {
    values: Values,
    scales: Vec<bf16>,
    group: usize,
}

#[derive(Clone, Debug, PartialEq)]
enum Values {
    Eight(Vec<i8>),
    Four(Vec<u8>),
}

impl QuantizedWeight {
    /// Quantises a weight, rows in parallel. Scales are rounded to bf16 before the weights are
    /// divided by them, so that they add no error of their own.
    ///
    /// # Shapes
    /// `weight[outputs, inputs]`, in groups of `group` inputs.
    ///
    /// # Errors
    /// If the group does not fit the inputs, the length does not fit the shape, a weight is not
    /// finite, or the weight is quantised already.
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
        let mut scales = vec![bf16::ZERO; len / group];
        let rows = scales.par_chunks_mut(inputs / group).enumerate();
        let values = match bits {
            Bits::Eight => {
                let mut values = vec![0; len];
                rows.zip(values.par_chunks_mut(inputs)).try_for_each(
                    |((row, scales), values)| {
                        let weights = widen(weight, row, inputs)?;
                        let groups = weights.chunks(group).zip(values.chunks_mut(group));
                        for (scale, (weights, values)) in scales.iter_mut().zip(groups) {
                            *scale = eight(weights, values);
                        }
                        Ok(())
                    },
                )?;
                Values::Eight(values)
            }
            Bits::Four => {
                let mut values = vec![0; len / 2];
                rows.zip(values.par_chunks_mut(inputs / 2)).try_for_each(
                    |((row, scales), values)| {
                        let weights = widen(weight, row, inputs)?;
                        let groups = weights.chunks(group).zip(values.chunks_mut(group / 2));
                        for (scale, (weights, values)) in scales.iter_mut().zip(groups) {
                            *scale = four(weights, values);
                        }
                        Ok(())
                    },
                )?;
                Values::Four(values)
            }
        };
        Ok(Self {
            values,
            scales,
            group,
        })
    }

    /// A weight from what [`value_bytes`](Self::value_bytes) and [`scales`](Self::scales) gave.
    ///
    /// # Errors
    /// If the group does not fit the inputs, or the lengths do not fit each other.
    pub fn from_parts(
        values: &[u8],
        scales: Vec<bf16>,
        inputs: usize,
        (group, bits): (usize, Bits),
    ) -> Result<Self, QuantizeError> {
        check_group(group, inputs)?;
        let len = scales.len() * group;
        let (expected, values) = match bits {
            Bits::Eight => {
                let signed = values.iter().map(|&value| value.cast_signed()).collect();
                (len, Values::Eight(signed))
            }
            Bits::Four => (len / 2, Values::Four(values.to_vec())),
        };
        let found = match &values {
            Values::Eight(values) => values.len(),
            Values::Four(values) => values.len(),
        };
        if found != expected || !len.is_multiple_of(inputs) {
            return Err(QuantizeError::Length { expected, found });
        }
        Ok(Self {
            values,
            scales,
            group,
        })
    }

    /// The weights as bytes, in a form that only this crate knows.
    #[must_use]
    pub fn value_bytes(&self) -> &[u8] {
        match &self.values {
            Values::Eight(values) => {
                // SAFETY: signed and unsigned bytes have the same layout.
                unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), values.len()) }
            }
            Values::Four(values) => values,
        }
    }

    /// The scales, group by group.
    #[must_use]
    pub fn scales(&self) -> &[bf16] {
        &self.scales
    }

    /// The weight cut to some of its rows, in this order.
    ///
    /// # Panics
    /// If there is no such row, or `inputs` is not the length of a row.
    #[must_use]
    pub fn select_outputs(&self, outputs: &[u32], inputs: usize) -> Self {
        fn rows<T: Copy>(all: &[T], len: usize, picked: &[u32]) -> Vec<T> {
            let rows = picked.iter().map(|&row| row as usize * len);
            rows.flat_map(|start| all[start..start + len].iter().copied())
                .collect()
        }
        Self {
            values: match &self.values {
                Values::Eight(values) => Values::Eight(rows(values, inputs, outputs)),
                Values::Four(values) => Values::Four(rows(values, inputs / 2, outputs)),
            },
            scales: rows(&self.scales, inputs / self.group, outputs),
            group: self.group,
        }
    }

    /// The weight for [`crate::linear()`].
    #[must_use]
    pub fn borrow(&self) -> Weight<'_> {
        let (scales, group) = (&self.scales[..], self.group);
        match &self.values {
            Values::Eight(values) => Weight::Int8 {
                values,
                scales,
                group,
            },
            Values::Four(values) => Weight::Int4 {
                values,
                scales,
                group,
            },
        }
    }
}

/// Checks that a group of weights can share a scale.
///
/// # Errors
/// If the group is no multiple of [`GROUP_STEP`] or does not divide the inputs.
pub fn check_group(group: usize, inputs: usize) -> Result<(), QuantizeError> {
    let fits =
        group > 0 && inputs > 0 && group.is_multiple_of(GROUP_STEP) && inputs.is_multiple_of(group);
    if fits {
        Ok(())
    } else {
        Err(QuantizeError::Group { group, inputs })
    }
}

/// A row in 32 bits.
fn widen(weight: Weight<'_>, row: usize, inputs: usize) -> Result<Vec<f32>, QuantizeError> {
    let range = row * inputs..(row + 1) * inputs;
    let row_values: Vec<f32> = match weight {
        Weight::F32(values) => values[range].to_vec(),
        Weight::Bf16(values) => values[range].iter().map(|value| value.to_f32()).collect(),
        Weight::F16(values) => values[range].iter().map(|value| value.to_f32()).collect(),
        Weight::Int8 { .. } | Weight::Int4 { .. } => return Err(QuantizeError::Quantized),
    };
    if row_values.iter().all(|value| value.is_finite()) {
        Ok(row_values)
    } else {
        Err(QuantizeError::NonFinite { output: row })
    }
}

/// Quantises a group to -127..=127 and returns the scale.
fn eight(weights: &[f32], values: &mut [i8]) -> bf16 {
    let greatest = weights
        .iter()
        .fold(0.0_f32, |greatest, weight| greatest.max(weight.abs()));
    let scale = bf16::from_f32(greatest / 127.0);
    let inverse = inverse(scale);
    for (value, weight) in values.iter_mut().zip(weights) {
        *value = (weight * inverse).round_ties_even().clamp(-127.0, 127.0) as i8;
    }
    scale
}

/// Quantises a group to -8..=7, the weight of the greatest magnitude to -8, and returns the
/// scale. Of each [`GROUP_STEP`] weights the first half goes to the low nibbles.
fn four(weights: &[f32], values: &mut [u8]) -> bf16 {
    let greater = |a: f32, b: &f32| if b.abs() > a.abs() { *b } else { a };
    let greatest = weights.iter().fold(0.0_f32, greater);
    let scale = bf16::from_f32(greatest / -8.0);
    let inverse = inverse(scale);
    let nibble = |weight: f32| (weight * inverse + 8.0).round_ties_even().clamp(0.0, 15.0) as u8;
    let steps = weights
        .chunks_exact(GROUP_STEP)
        .zip(values.chunks_exact_mut(GROUP_STEP / 2));
    for (weights, values) in steps {
        let (low, high) = weights.split_at(GROUP_STEP / 2);
        for ((value, low), high) in values.iter_mut().zip(low).zip(high) {
            *value = nibble(*low) | nibble(*high) << 4;
        }
    }
    scale
}

/// One over the scale; zero for a group of zeros, or of weights too small for a scale.
fn inverse(scale: bf16) -> f32 {
    let inverse = 1.0 / scale.to_f32();
    if inverse.is_finite() { inverse } else { 0.0 }
}
