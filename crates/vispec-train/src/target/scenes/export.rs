//! Export of targets, in the layout of the base.

use std::fs;
use std::path::Path;

use super::super::checkpoint::{edit, in_bf16, kept_weights, plain_files, replace};
use super::config::MakeTargetConfig;
use super::start::full_name;
use crate::error::TrainError;
use crate::files::{self, at};
use crate::network::{Parameters, TargetShape};

/// Writes the checkpoint to `dir`, replacing an existing one. Weights are in bf16; untrained
/// weights and all other files come from the base.
///
/// # Errors
/// [`TrainError::Io`] and [`TrainError::Checkpoint`].
pub(super) fn export(
    dir: &Path,
    config: &MakeTargetConfig,
    shape: &TargetShape,
    parameters: &Parameters,
) -> Result<(), TrainError> {
    replace(dir, |partial| {
        for name in plain_files(&config.base)? {
            let (from, to) = (config.base.join(&name), partial.join(&name));
            match name.to_str() {
                Some("model.safetensors") => {
                    // All layers are trained.
                    let mut tensors =
                        kept_weights(&from, |name| !name.starts_with("model.layers."))?;
                    for (name, tensor) in parameters {
                        tensors.insert(full_name(name), in_bf16(&tensor.shape, tensor));
                    }
                    files::write_tensors(&to, tensors, ("format", "pt".to_owned()))?;
                }
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
        Ok(())
    })
}
