//! Checkpoints of targets, in the layout of the base.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use half::bf16;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value};

use super::config::MakeTargetConfig;
use super::start::full_name;
use crate::error::TrainError;
use crate::files::{self, StoredTensor, at};
use crate::network::{Parameters, TargetShape};

/// Writes the checkpoint to `dir`, in place of one that is there: weights in bf16, those that are
/// not trained as the base has them; all other files of the base.
///
/// # Errors
/// [`TrainError::Io`] and [`TrainError::Checkpoint`].
pub(super) fn export(
    dir: &Path,
    config: &MakeTargetConfig,
    shape: &TargetShape,
    parameters: &Parameters,
) -> Result<(), TrainError> {
    let partial = dir.with_extension("partial");
    remove(&partial)?;
    fs::create_dir_all(&partial).map_err(at(&partial))?;
    for name in plain_files(&config.base)? {
        let (from, to) = (config.base.join(&name), partial.join(&name));
        match name.to_str() {
            Some("model.safetensors") => write_weights(&from, &to, parameters)?,
            Some("config.json") => edit(&from, &to, |fields| {
                fields.insert("num_hidden_layers".into(), shape.decoder.layers.into());
                fields.insert("torch_dtype".into(), "bfloat16".into());
            })?,
            Some("preprocessor_config.json") => edit(&from, &to, |fields| {
                fields.insert("max_pixels".into(), config.max_pixels.into());
            })?,
            _ => {
                fs::copy(&from, &to).map_err(at(&from))?;
            }
        }
    }
    remove(dir)?;
    fs::rename(&partial, dir).map_err(at(dir))
}

fn remove(dir: &Path) -> Result<(), TrainError> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at(dir)(error)),
        _ => Ok(()),
    }
}

fn plain_files(dir: &Path) -> Result<Vec<PathBuf>, TrainError> {
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

fn edit(
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

fn write_weights(from: &Path, to: &Path, parameters: &Parameters) -> Result<(), TrainError> {
    let bytes = fs::read(from).map_err(at(from))?;
    let base = SafeTensors::deserialize(&bytes).map_err(|error| damaged(from, error))?;
    let mut tensors = HashMap::new();
    for (name, view) in base.tensors() {
        // All layers are written below.
        if name.starts_with("model.layers.") {
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
                    from,
                    format!("{name} is in {other:?}, expected F32 or BF16"),
                ));
            }
        };
        tensors.insert(name, in_bf16(view.shape(), values));
    }
    for (name, tensor) in parameters {
        let values = tensor.values.iter().copied().map(bf16::from_f32).collect();
        tensors.insert(full_name(name), in_bf16(&tensor.shape, values));
    }
    files::write_tensors(to, tensors, ("format", "pt".to_owned()))
}

fn in_bf16(shape: &[usize], values: Vec<bf16>) -> StoredTensor<'static> {
    let bytes = bytemuck::cast_slice(&values).to_vec();
    StoredTensor::new(Dtype::BF16, shape.to_vec(), bytes)
}

fn damaged(path: &Path, reason: impl ToString) -> TrainError {
    TrainError::Checkpoint {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}
