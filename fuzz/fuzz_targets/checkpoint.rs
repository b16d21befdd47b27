//! Weights of any content: the first byte chooses which file of a checkpoint they are.
#![no_main]

use std::path::Path;

use burn::tensor::DType;
use libfuzzer_sys::fuzz_target;
use vispec_models::{DeviceSpec, Precision};
use vispec_models::weights::{Checkpoint, Weights};

const NAMES: [&str; 4] = [
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "model-00001-of-00001.safetensors",
];
/// What an index points at.
const SHARD: &[u8] = include_bytes!("../data/shard.safetensors");
const INDEX: &[u8] = include_bytes!("../data/model.safetensors.index.json");
/// Tensors of more elements are not copied.
const MAX_ELEMENTS: usize = 1 << 16;

/// Reads every tensor that has a shape models know.
fn read(checkpoint: &Checkpoint) {
    let device = DeviceSpec::Flex.open().expect("the CPU");
    let precision = Precision {
        storage: checkpoint.main_dtype(),
        compute: DType::F32,
        quantization: None,
    };
    let weights = Weights::new(checkpoint, &device, precision);
    for name in checkpoint.names() {
        assert!(checkpoint.contains(name) && checkpoint.dtype(name).is_some());
        let shape = checkpoint.shape(name).expect("a tensor has a shape");
        let elements = shape.iter().try_fold(1, |n: usize, &dim| n.checked_mul(dim));
        if elements.is_none_or(|n| n > MAX_ELEMENTS) {
            continue;
        }
        match *shape {
            [n] => drop(weights.vector::<1>(name, [n])),
            [rows, columns] => drop(weights.matrix::<2>(name, [rows, columns])),
            _ => weights.skip(name),
        }
    }
    let _ = weights.finish();
}

fn write(dir: &Path, name: &str, content: &[u8]) {
    std::fs::write(dir.join(name), content).expect("a temporary file");
}

fuzz_target!(|data: &[u8]| {
    let Some((&kind, content)) = data.split_first() else {
        return;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let name = NAMES[usize::from(kind) % NAMES.len()];
    if name == NAMES[2] {
        write(dir.path(), NAMES[3], SHARD);
    } else if name == NAMES[3] {
        write(dir.path(), NAMES[2], INDEX);
    }
    write(dir.path(), name, content);
    if let Ok(checkpoint) = Checkpoint::open(dir.path(), &[]) {
        read(&checkpoint);
    }
});
