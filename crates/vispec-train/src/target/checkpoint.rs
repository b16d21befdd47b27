//! Checkpoints that are derived from others by changing some of their files.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use half::bf16;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value};

use crate::error::TrainError;
use crate::files::{self, StoredTensor, at};
use crate::network::HostTensor;

/// Fills a new directory with `write`, then puts it at `dir`, replacing an existing one.
pub(super) fn replace(
    dir: &Path,
    write: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let partial = dir.with_extension("partial");
    remove(&partial)?;
    fs::create_dir_all(&partial).map_err(at(&partial))?;
    write(&partial)?;
    remove(dir)?;
    fs::rename(&partial, dir).map_err(at(dir))
}

fn remove(dir: &Path) -> Result<(), TrainError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at(dir)(error)),
        _ => Ok(()),
    }
}

/// Returns the names of the files in `dir`, sorted.
pub(super) fn plain_files(dir: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(at(dir))? {
        let entry = entry.map_err(at(dir))?;
        if entry.path().is_file() {
            names.push(PathBuf::from(entry.file_name()));
        }
    }
    names.sort();
    Ok(names)
}

/// Copies a JSON file with a change.
pub(super) fn edit(
    from: &Path,
    to: &Path,
    change: impl FnOnce(&mut Map<String, Value>),
) -> Result<(), TrainError> {
    let text = fs::read_to_string(from).map_err(at(from))?;
    let mut fields: Map<String, Value> =
        serde_json::from_str(&text).map_err(|error| damaged(from, error))?;
    change(&mut fields);
    let text = format!("{:#}\n", Value::Object(fields));
    files::write(to, text.as_bytes())
}

/// Reads the tensors of a weights file for which `keep` returns true, as bf16.
pub(super) fn kept_weights(
    path: &Path,
    keep: impl Fn(&str) -> bool,
) -> Result<HashMap<String, StoredTensor<'static>>, TrainError> {
    let bytes = fs::read(path).map_err(at(path))?;
    let base = SafeTensors::deserialize(&bytes).map_err(|error| damaged(path, error))?;
    let mut tensors = HashMap::new();
    for (name, view) in base.tensors() {
        if !keep(&name) {
            continue;
        }
        let values: Vec<bf16> = match view.dtype() {
            Dtype::F32 => bytemuck::pod_collect_to_vec::<u8, f32>(view.data())
                .into_iter()
                .map(bf16::from_f32)
                .collect(),
            Dtype::BF16 => bytemuck::pod_collect_to_vec(view.data()),
            other => {
                return Err(damaged(
                    path,
                    format!("{name} has type {other:?}, expected F32 or BF16"),
                ));
            }
        };
        tensors.insert(name, stored(view.shape(), values));
    }
    Ok(tensors)
}

/// Returns an entry of the metadata of a weights file.
pub(super) fn metadata_entry(path: &Path, key: &str) -> Result<Option<String>, TrainError> {
    let bytes = fs::read(path).map_err(at(path))?;
    let (_, metadata) = SafeTensors::read_metadata(&bytes).map_err(|error| damaged(path, error))?;
    let entries = metadata.metadata().as_ref();
    Ok(entries.and_then(|entries| entries.get(key).cloned()))
}

/// Converts a tensor to bf16, with a shape of the same number of elements.
pub(super) fn in_bf16(shape: &[usize], tensor: &HostTensor) -> StoredTensor<'static> {
    let values = tensor.values.iter().copied().map(bf16::from_f32);
    stored(shape, values.collect())
}

fn stored(shape: &[usize], values: Vec<bf16>) -> StoredTensor<'static> {
    let bytes = bytemuck::cast_slice(&values).to_vec();
    StoredTensor::new(Dtype::BF16, shape.to_vec(), bytes)
}

/// Returns the error for a damaged file.
pub(super) fn damaged(path: &Path, reason: impl ToString) -> TrainError {
    TrainError::Checkpoint {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}
