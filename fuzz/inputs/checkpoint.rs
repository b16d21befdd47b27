//! Weight files with any content: the first byte chooses the file of the checkpoint.

use std::path::Path;

use vispec_models::weights::{Checkpoint, Weights};
use vispec_models::{DeviceSpec, Precision};

const NAMES: [&str; 4] = [
    "model.safetensors",
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "model-00001-of-00001.safetensors",
];
/// The shard that an index refers to.
const SHARD: &[u8] = include_bytes!("../data/shard.safetensors");
const INDEX: &[u8] = include_bytes!("../data/model.safetensors.index.json");
/// Tensors with more elements are not copied.
const MAX_ELEMENTS: usize = 1 << 16;

/// Reads all vectors and matrices.
fn read(checkpoint: &Checkpoint) -> bool {
    let device = DeviceSpec::Flex.open().expect("the CPU");
    let precision = Precision {
        storage: checkpoint.main_dtype(),
        compute: checkpoint.main_dtype(),
        quantization: None,
    };
    let weights = Weights::new(checkpoint, &device, precision);
    for name in checkpoint.names() {
        assert!(checkpoint.contains(name) && checkpoint.dtype(name).is_some());
        let shape = checkpoint.shape(name).expect("a tensor has a shape");
        let elements = shape
            .iter()
            .try_fold(1, |n: usize, &dim| n.checked_mul(dim));
        if elements.is_none_or(|n| n > MAX_ELEMENTS) {
            weights.skip(name);
            continue;
        }
        match *shape {
            [n] => drop(weights.vector::<1>(name, [n])),
            [rows, columns] => drop(weights.matrix::<2>(name, [rows, columns])),
            _ => weights.skip(name),
        }
    }
    weights.finish().is_ok()
}

fn write(dir: &Path, name: &str, content: &[u8]) {
    std::fs::write(dir.join(name), content).expect("a temporary file");
}

/// Returns whether a checkpoint opens and all its tensors can be read.
pub(crate) fn check(data: &[u8]) -> bool {
    let Some((&kind, content)) = data.split_first() else {
        return false;
    };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let name = NAMES[usize::from(kind) % NAMES.len()];
    if name == NAMES[2] {
        write(dir.path(), NAMES[3], SHARD);
    } else if name == NAMES[3] {
        write(dir.path(), NAMES[2], INDEX);
    }
    write(dir.path(), name, content);
    Checkpoint::open(dir.path(), &[]).is_ok_and(|checkpoint| read(&checkpoint))
}
