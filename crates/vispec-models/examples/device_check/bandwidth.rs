//! How fast a device reads and writes its memory.

use std::time::Instant;

use burn::tensor::{DType, Device, Tensor};
use vispec_core::BoxError;

/// Elements of a buffer: the largest that every device takes.
const LEN: usize = 16 << 20;
/// Buffers that take turns, so that no cache holds them: a gigabyte.
const BUFFERS: usize = 16;
const ROUNDS: usize = 5;

/// Bytes per second that the best of some rounds reads and writes.
pub(crate) fn measured(device: &Device) -> Result<f64, BoxError> {
    let mut buffers: Vec<Tensor<1>> = (0..BUFFERS)
        .map(|_| Tensor::zeros([LEN], (device, DType::F32)))
        .collect();
    let mut round = || -> Result<f64, BoxError> {
        device.sync()?;
        let start = Instant::now();
        for buffer in &mut buffers {
            *buffer = buffer.clone().add_scalar(1.0);
        }
        device.sync()?;
        Ok(start.elapsed().as_secs_f64())
    };
    // Compiles the kernel.
    round()?;
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        best = best.min(round()?);
    }
    drop(buffers);
    device.memory_cleanup();
    let bytes = 2 * BUFFERS * LEN * size_of::<f32>();
    Ok(bytes as f64 / best)
}
