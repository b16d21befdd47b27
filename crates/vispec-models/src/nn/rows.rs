//! Rows of several sequences in one matrix.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData, s};

/// The rows of each matrix `[rows, width]` after those of the one before, without a copy of a single
/// one.
///
/// # Panics
/// If there is none, or their widths differ.
pub(crate) fn join_rows(mut parts: Vec<Tensor<2>>) -> Tensor<2> {
    match parts.len() {
        1 => parts.remove(0),
        _ => Tensor::cat(parts, 0),
    }
}

/// The columns of each matrix `[rows, width]` beside those of the one before, without a copy of a
/// single one.
///
/// # Panics
/// If there is none, or they have different numbers of rows.
pub(crate) fn join_columns(mut parts: Vec<Tensor<2>>) -> Tensor<2> {
    match parts.len() {
        1 => parts.remove(0),
        _ => Tensor::cat(parts, 1),
    }
}

/// The matrix `[rows, width]` with rows of zeros behind it, if it has fewer than `least`.
pub(crate) fn pad_rows(rows: Tensor<2>, least: usize) -> Tensor<2> {
    let [n_rows, width] = rows.dims();
    match least.checked_sub(n_rows) {
        None | Some(0) => rows,
        Some(missing) => {
            let zeros = Tensor::zeros([missing, width], (&rows.device(), rows.dtype()));
            Tensor::cat(vec![rows, zeros], 0)
        }
    }
}

/// Numbers of rows on a device, to select these.
pub(crate) fn row_numbers(rows: &[u32], device: &Device) -> Tensor<1, Int> {
    let numbers: Vec<i64> = rows.iter().map(|&row| i64::from(row)).collect();
    Tensor::from_data(TensorData::new(numbers, [rows.len()]), device)
}

/// Rows `rows` of `all` `[rows, width]`.
pub(crate) fn slice_rows(all: &Tensor<2>, rows: Range<usize>) -> Tensor<2> {
    if rows.len() == all.dims()[0] {
        all.clone()
    } else {
        all.clone().slice(s![rows, ..])
    }
}
