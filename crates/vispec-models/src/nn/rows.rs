//! Rows of several sequences in one matrix.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData, s};

/// Concatenates the rows of matrices `[rows, width]`. A single matrix is returned without a copy.
///
/// # Panics
/// If `parts` is empty or the widths differ.
pub(crate) fn join_rows(mut parts: Vec<Tensor<2>>) -> Tensor<2> {
    match parts.len() {
        1 => parts.remove(0),
        _ => Tensor::cat(parts, 0),
    }
}

/// Concatenates the columns of matrices `[rows, width]`. A single matrix is returned without a
/// copy.
///
/// # Panics
/// If `parts` is empty or the numbers of rows differ.
pub(crate) fn join_columns(mut parts: Vec<Tensor<2>>) -> Tensor<2> {
    match parts.len() {
        1 => parts.remove(0),
        _ => Tensor::cat(parts, 1),
    }
}

/// Pads the matrix `[rows, width]` with rows of zeros to at least `least` rows.
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

/// Uploads row numbers to a device, for use as an index.
pub(crate) fn row_numbers(rows: &[u32], device: &Device) -> Tensor<1, Int> {
    let numbers: Vec<i64> = rows.iter().map(|&row| i64::from(row)).collect();
    Tensor::from_data(TensorData::new(numbers, [rows.len()]), device)
}

/// Returns rows `rows` of `all` `[rows, width]`.
pub(crate) fn slice_rows(all: &Tensor<2>, rows: Range<usize>) -> Tensor<2> {
    if rows.len() == all.dims()[0] {
        all.clone()
    } else {
        all.clone().slice(s![rows, ..])
    }
}
