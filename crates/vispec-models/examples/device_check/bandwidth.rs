//! Measures how fast a device reads and writes its memory.

use std::time::Instant;

use burn::tensor::{DType, Device, Tensor};
use vispec_core::BoxError;

/// Elements of a buffer: the maximum that every device accepts.
const LEN: usize = 16 << 20;
/// Number of buffers. They are used in turn and together take a gigabyte, so no cache holds them.
const BUFFERS: usize = 16;
const ROUNDS: usize = 5;

/// Returns the bytes per second read and written, in the fastest round.
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
    // The first round also compiles the kernel.
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
