//! Writes sharded safetensors files with only one tensor in memory at a time.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use half::bf16;
use safetensors::serialize_to_file;
use safetensors::tensor::{Dtype, View};
use serde_json::json;

use super::noise::Noise;
use super::shape::{Shape, TensorShape};

/// A tensor whose numbers are generated when it is written.
pub(super) struct Drawn<'a> {
    pub(super) tensor: &'a TensorShape,
    pub(super) noise: &'a Noise,
}

impl View for Drawn<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::BF16
    }

    fn shape(&self) -> &[usize] {
        &self.tensor.dims
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let len = self.tensor.len();
        Cow::Owned(if self.tensor.is_norm() {
            bf16::ONE.to_le_bytes().repeat(len)
        } else {
            self.noise.bytes(&self.tensor.name, len)
        })
    }

    fn data_len(&self) -> usize {
        2 * self.tensor.len()
    }
}

/// Writes all tensors of `shape` and the index of their files.
pub(super) fn write(dir: &Path, shape: &Shape, seed: u64) -> Result<()> {
    let tensors = shape.tensors();
    let shards = shards(&tensors, shape.shard_bytes);
    let noise = Noise::new(seed);
    let mut weight_map = BTreeMap::new();
    for (idx, shard) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", idx + 1, shards.len());
        let drawn = shard.iter().map(|tensor| {
            let noise = &noise;
            (&tensor.name, Drawn { tensor, noise })
        });
        // Transformers requires the metadata field `format`.
        let metadata = [("format".to_owned(), "pt".to_owned())].into();
        serialize_to_file(drawn, Some(metadata), &dir.join(&name))
            .with_context(|| dir.join(&name).display().to_string())?;
        weight_map.extend(shard.iter().map(|tensor| (&tensor.name, name.clone())));
    }
    let bytes: usize = tensors.iter().map(|tensor| 2 * tensor.len()).sum();
    let index = json!({ "metadata": { "total_size": bytes }, "weight_map": weight_map });
    let path = dir.join("model.safetensors.index.json");
    fs::write(&path, serde_json::to_vec_pretty(&index)?).with_context(|| path.display().to_string())
}

/// Splits the list into shards of at most `limit` bytes, except for single larger tensors.
fn shards(tensors: &[TensorShape], limit: usize) -> Vec<Vec<&TensorShape>> {
    let mut shards = vec![Vec::new()];
    let mut bytes = 0;
    for tensor in tensors {
        bytes += 2 * tensor.len();
        if bytes > limit && shards.last().is_some_and(|shard| !shard.is_empty()) {
            shards.push(Vec::new());
            bytes = 2 * tensor.len();
        }
        if let Some(shard) = shards.last_mut() {
            shard.push(tensor);
        }
    }
    shards
}
