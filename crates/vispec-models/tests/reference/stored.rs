//! Tensors of a checkpoint that can be changed and written back.

use std::path::Path;

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::torch_archive::{TorchTensor, write_torch_archive};

/// A tensor in memory.
#[derive(Debug, Clone)]
pub struct Stored {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub data: Vec<u8>,
}

impl Stored {
    pub fn of_floats(name: &str, shape: &[usize], values: &[f32]) -> Self {
        Self {
            name: name.to_owned(),
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            data: values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
        }
    }

    pub fn floats(&self) -> impl Iterator<Item = f32> + '_ {
        let words = self.data.chunks_exact(4);
        words.map(|b| f32::from_le_bytes(b.try_into().unwrap()))
    }
}

pub fn read(path: &Path) -> Vec<Stored> {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .map(|(name, view)| Stored {
            name: name.to_owned(),
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            data: view.data().to_vec(),
        })
        .collect()
}

pub fn write(path: &Path, tensors: &[Stored]) {
    let views = tensors.iter().map(|t| {
        let view = TensorView::new(t.dtype, t.shape.clone(), &t.data).unwrap();
        (t.name.clone(), view)
    });
    safetensors::serialize_to_file(views.collect::<Vec<_>>(), None, path).unwrap();
}

/// Rewrites the weights of a copied checkpoint.
pub fn rewrite(dir: &Path, change: impl FnOnce(Vec<Stored>) -> Vec<Stored>) {
    let path = dir.join("model.safetensors");
    let tensors = change(read(&path));
    write(&path, &tensors);
}

/// Converts the weights of a copied checkpoint to the format of `torch.save`.
pub fn to_torch_archive(dir: &Path) {
    let file = dir.join("model.safetensors");
    let tensors = read(&file);
    std::fs::remove_file(file).unwrap();
    let tensors = tensors.iter().map(|t| TorchTensor {
        name: &t.name,
        shape: &t.shape,
        storage: match t.dtype {
            Dtype::F32 => "FloatStorage",
            Dtype::I64 => "LongStorage",
            Dtype::BOOL => "BoolStorage",
            other => panic!("{other:?}"),
        },
        bytes: &t.data,
    });
    let archive = dir.join("pytorch_model.bin");
    write_torch_archive(&archive, &tensors.collect::<Vec<_>>()).unwrap();
}
