//! Cross entropy.

use burn::tensor::{Int, Tensor, TensorData};

/// Returns the cross entropy of the tokens `next`, as the mean over rows.
pub(super) fn negative_mean(log_probabilities: Tensor<2>, next: &[u32]) -> Tensor<1> {
    let ids: Vec<i64> = next.iter().map(|&id| i64::from(id)).collect();
    let shape = [ids.len(), 1];
    let device = log_probabilities.device();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, shape), &device);
    log_probabilities.gather(1, ids).mean().neg()
}

pub(super) fn scalar(tensor: Tensor<1>) -> f64 {
    f64::from(tensor.into_scalar::<f32>())
}
