//! Files that only describe tensors, whose numbers programs generate at start. The vision-language
//! models of this workspace then take as much memory as published ones, but no disk space.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use safetensors::serialize_to_file;
use safetensors::tensor::View;
use serde_json::{Map, Value, json};

use super::noise::DEVIATION;
use super::shape::TensorShape;

/// Metadata key under which vispec-models looks for descriptions.
const KEY: &str = "vispec_drawn_tensors";

/// Writes a file that describes `tensors` and stores the tensors `stored`.
pub(super) fn write<'a, V: View>(
    dir: &Path,
    tensors: &[TensorShape],
    stored: impl IntoIterator<Item = (&'a str, V)>,
) -> Result<()> {
    let described: Map<String, Value> = tensors
        .iter()
        .map(|tensor| (tensor.name.clone(), described(tensor)))
        .collect();
    let metadata = HashMap::from([(KEY.to_owned(), Value::Object(described).to_string())]);
    let path = dir.join("model.safetensors");
    serialize_to_file(stored, Some(metadata), &path).with_context(|| path.display().to_string())
}

/// Describes a tensor: its shape, and the mean and deviation of its numbers.
fn described(tensor: &TensorShape) -> Value {
    let (mean, deviation) = if tensor.is_norm() {
        (1.0, 0.0)
    } else {
        (0.0, DEVIATION)
    };
    json!({ "shape": tensor.dims, "mean": mean, "deviation": deviation })
}
