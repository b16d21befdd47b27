//! Conversion between the floating-point types of weight files.

use burn::tensor::DType;
use half::{bf16, f16};

/// Rewrites little-endian elements of type `from` as elements of type `to`.
///
/// Returns `None` unless both types are f32, f16 or bf16. Rounds to nearest, ties to even.
pub(crate) fn convert(bytes: &[u8], from: DType, to: DType) -> Option<Vec<u8>> {
    match from {
        DType::F32 => encode(
            bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            to,
        ),
        DType::F16 => encode(
            bytes
                .chunks_exact(2)
                .map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()),
            to,
        ),
        DType::BF16 => encode(
            bytes
                .chunks_exact(2)
                .map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()),
            to,
        ),
        _ => None,
    }
}

/// Reads little-endian integers, or booleans of one byte each, of type `from`; `None` if it is
/// neither.
pub(crate) fn integers(bytes: &[u8], from: DType) -> Option<Vec<i64>> {
    Some(match from {
        DType::I64 => bytes
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
            .collect(),
        DType::I32 => bytes
            .chunks_exact(4)
            .map(|b| i64::from(i32::from_le_bytes([b[0], b[1], b[2], b[3]])))
            .collect(),
        DType::U8 | DType::Bool(_) => bytes.iter().map(|&b| i64::from(b)).collect(),
        _ => return None,
    })
}

fn encode(values: impl ExactSizeIterator<Item = f32>, to: DType) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(values.len() * to.size());
    match to {
        DType::F32 => values.for_each(|v| out.extend_from_slice(&v.to_le_bytes())),
        DType::F16 => values.for_each(|v| out.extend_from_slice(&f16::from_f32(v).to_le_bytes())),
        DType::BF16 => values.for_each(|v| out.extend_from_slice(&bf16::from_f32(v).to_le_bytes())),
        _ => return None,
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widening_is_exact_and_narrowing_rounds() {
        let values = [0.0f32, 1.0, -2.5, 3.140_625, 65504.0];
        let narrow: Vec<u8> = values
            .iter()
            .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
            .collect();
        let wide = convert(&narrow, DType::BF16, DType::F32).unwrap();
        let back = convert(&wide, DType::F32, DType::BF16).unwrap();
        assert_eq!(narrow, back);
        let third = convert(&(1.0f32 / 3.0).to_le_bytes(), DType::F32, DType::F16).unwrap();
        assert_eq!(third, f16::from_f32(1.0 / 3.0).to_le_bytes());
    }
}
