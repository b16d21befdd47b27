//! Conversion between floating-point numbers and bytes.

use half::{bf16, f16};
use ndarray::Array2;
use safetensors::Dtype;

use super::header::ElementType;

/// Returns the safetensors name of an element type.
pub(super) fn safetensors_type(element: ElementType) -> Dtype {
    match element {
        ElementType::F32 => Dtype::F32,
        ElementType::F16 => Dtype::F16,
        ElementType::Bf16 => Dtype::BF16,
    }
}

/// Rounds rows to the element type; `Err` holds the first value that does not fit.
pub(super) fn encoded(
    vectors: &Array2<f32>,
    rows: &[usize],
    dtype: ElementType,
) -> Result<Vec<u8>, f32> {
    let mut bytes = Vec::with_capacity(rows.len() * vectors.ncols() * dtype.n_bytes());
    for &row in rows {
        for &value in vectors.row(row) {
            let is_finite = match dtype {
                ElementType::F32 => {
                    bytes.extend_from_slice(&value.to_le_bytes());
                    value.is_finite()
                }
                ElementType::F16 => {
                    let rounded = f16::from_f32(value);
                    bytes.extend_from_slice(&rounded.to_le_bytes());
                    rounded.is_finite()
                }
                ElementType::Bf16 => {
                    let rounded = bf16::from_f32(value);
                    bytes.extend_from_slice(&rounded.to_le_bytes());
                    rounded.is_finite()
                }
            };
            if !is_finite {
                return Err(value);
            }
        }
    }
    Ok(bytes)
}

/// Decodes the bytes of an element type to numbers.
pub(super) fn decoded(bytes: &[u8], dtype: ElementType) -> Vec<f32> {
    let (pairs, _) = bytes.as_chunks::<2>();
    match dtype {
        ElementType::F32 => {
            let (words, _) = bytes.as_chunks::<4>();
            words.iter().map(|word| f32::from_le_bytes(*word)).collect()
        }
        ElementType::F16 => pairs
            .iter()
            .map(|pair| f16::from_le_bytes(*pair).to_f32())
            .collect(),
        ElementType::Bf16 => pairs
            .iter()
            .map(|pair| bf16::from_le_bytes(*pair).to_f32())
            .collect(),
    }
}
