//! Tests on a GPU or a software Vulkan device. Without either, they print that they are skipped.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use burn::tensor::{DType, Device, Tensor};
use safetensors::tensor::{Dtype, TensorView};

use super::CUBES;
use crate::device::DeviceSpec;
use crate::nn::cube::Stream;
use crate::nn::cube::gating::gated;
use crate::nn::cube::norm::settle_and_norm;
use crate::nn::norm::RmsNorm;
use crate::precision::Precision;
use crate::weights::{Checkpoint, Weights};

/// Creates a norm of two entries.
fn norm(device: &Device) -> RmsNorm {
    let dir = tempfile::tempdir().unwrap();
    let weight: Vec<u8> = [2.0f32, 3.0].iter().flat_map(|w| w.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, vec![2], &weight).unwrap();
    let path = dir.path().join("model.safetensors");
    safetensors::serialize_to_file([("weight", view)], None, &path).unwrap();
    let checkpoint = Checkpoint::open(dir.path(), &[]).unwrap();
    let precision = Precision {
        storage: DType::F32,
        compute: DType::F32,
        quantization: None,
    };
    RmsNorm::load(&Weights::new(&checkpoint, device, precision), 2, 0.0)
}

/// A prompt may have more rows than a device has cubes in one dimension.
#[test]
fn more_rows_than_cubes_on_a_gpu_are_all_computed() {
    let Ok(device) = DeviceSpec::Wgpu.open() else {
        eprintln!("skipped: no GPU and no software Vulkan (Mesa)");
        return;
    };
    let rows = CUBES + 3;
    let ones = Tensor::<2>::ones([rows, 2], (&device, DType::F32));
    let mut stream = Stream {
        settled: ones.clone(),
        pending: Some(ones.clone()),
    };
    let normed = settle_and_norm(&mut stream, &norm(&device));
    let values: Vec<f32> = normed.into_data().try_into_vec().unwrap();
    assert_eq!(values.len(), 2 * rows);
    let rows_are = |row: &[f32]| (row[0] - 2.0).abs() < 1e-5 && (row[1] - 3.0).abs() < 1e-5;
    assert!(values.chunks_exact(2).all(rows_are));
    let values: Vec<f32> = gated(ones).into_data().try_into_vec().unwrap();
    let expected = 1.0 / (1.0 + (-1.0f32).exp());
    assert_eq!(values.len(), rows);
    assert!(values.iter().all(|value| (value - expected).abs() < 1e-6));
}
