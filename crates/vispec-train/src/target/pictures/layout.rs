//! Writing of the checkpoint: first the text files, which lessons are prepared with, then the
//! weights.

use std::fs;
use std::path::Path;

use serde_json::json;
use vispec_models::llava::ClipConfig;

use super::super::checkpoint::{edit, in_bf16, kept_weights, plain_files, replace};
use crate::error::TrainError;
use crate::files::{self, at};
use crate::network::{HostTensor, Parameters};

/// Prefixes of the weights that a new tower replaces, in older and newer checkpoints.
const VISION: [&str; 4] = [
    "vision_tower.",
    "multi_modal_projector.",
    "model.vision_tower.",
    "model.multi_modal_projector.",
];

/// Writes all files except the weights: those of `base`, changed for another vision tower.
pub(super) fn write_texts(base: &Path, dir: &Path, vision: &ClipConfig) -> Result<(), TrainError> {
    replace(dir, |partial| texts(base, partial, vision))
}

fn texts(base: &Path, dir: &Path, vision: &ClipConfig) -> Result<(), TrainError> {
    let side = vision.image_size;
    for name in plain_files(base)? {
        let (from, to) = (base.join(&name), dir.join(&name));
        match name.to_str() {
            Some(name) if name.ends_with(".safetensors") || name.ends_with(".index.json") => {}
            Some("config.json") => edit(&from, &to, |fields| {
                fields.insert("torch_dtype".into(), "bfloat16".into());
                fields.insert("image_seq_length".into(), vision.grid_side().pow(2).into());
                fields.insert("vision_feature_layer".into(), (-1).into());
                fields.insert("vision_feature_select_strategy".into(), "default".into());
                fields.insert("projector_hidden_act".into(), "gelu".into());
                fields.insert("multimodal_projector_bias".into(), true.into());
                let tower = json!({
                    "model_type": "clip_vision_model",
                    "hidden_size": vision.hidden,
                    "intermediate_size": vision.intermediate,
                    "num_hidden_layers": vision.layers,
                    "num_attention_heads": vision.heads,
                    "image_size": side,
                    "patch_size": vision.patch_size,
                    "num_channels": 3,
                    "hidden_act": "quick_gelu",
                    "layer_norm_eps": vision.norm_eps,
                    "projection_dim": vision.hidden,
                });
                fields.insert("vision_config".into(), tower);
            })?,
            Some("preprocessor_config.json") => edit(&from, &to, |fields| {
                fields.insert("size".into(), json!({"shortest_edge": side}));
                fields.insert("crop_size".into(), json!({"height": side, "width": side}));
            })?,
            Some("processor_config.json") => edit(&from, &to, |fields| {
                fields.insert("patch_size".into(), vision.patch_size.into());
            })?,
            _ => {
                fs::copy(&from, &to).map_err(at(&from))?;
            }
        }
    }
    Ok(())
}

/// Writes the whole checkpoint.
pub(super) fn export(
    base: &Path,
    dir: &Path,
    vision: &ClipConfig,
    parameters: &Parameters,
) -> Result<(), TrainError> {
    replace(dir, |partial| {
        texts(base, partial, vision)?;
        let mut tensors = std::collections::HashMap::new();
        for name in plain_files(base)? {
            if name.extension().is_some_and(|kind| kind == "safetensors") {
                let kept = |name: &str| !VISION.iter().any(|prefix| name.starts_with(prefix));
                tensors.extend(kept_weights(&base.join(&name), kept)?);
            }
        }
        for (name, tensor) in parameters {
            if let Some((name, shape)) = full_name(name, tensor, vision) {
                tensors.insert(name, in_bf16(&shape, tensor));
            }
        }
        // This norm is unused, but other programs expect it.
        for (part, value) in [("weight", 1.0), ("bias", 0.0)] {
            let norm = HostTensor {
                shape: vec![vision.hidden],
                values: vec![value; vision.hidden],
            };
            let name = format!("vision_tower.vision_model.post_layernorm.{part}");
            tensors.insert(name, in_bf16(&norm.shape, &norm));
        }
        let to = partial.join("model.safetensors");
        files::write_tensors(&to, tensors, ("format", "pt".to_owned()))
    })
}

/// Returns the name and shape of a parameter in a checkpoint; `None` if it exists only in training.
fn full_name(name: &str, tensor: &HostTensor, vision: &ClipConfig) -> Option<(String, Vec<usize>)> {
    let shape = tensor.shape.clone();
    if let Some(name) = name.strip_prefix("projector.") {
        return Some((format!("multi_modal_projector.{name}"), shape));
    }
    let name = name.strip_prefix("tower.")?;
    let at = |name: &str| format!("vision_tower.vision_model.{name}");
    let patch = vision.patch_size;
    Some(match name {
        "class_embedding" => (at("embeddings.class_embedding"), shape),
        "position_embedding" => (
            at("embeddings.position_embedding.weight"),
            shape[1..].to_vec(),
        ),
        "patch_embedding.weight" => (
            at("embeddings.patch_embedding.weight"),
            vec![vision.hidden, 3, patch, patch],
        ),
        // The published name is misspelt.
        _ if name.starts_with("pre_norm.") => {
            (at(&name.replace("pre_norm", "pre_layrnorm")), shape)
        }
        _ => {
            let (layer, rest) = name.strip_prefix("layers.")?.split_once('.')?;
            let part = if rest.contains("proj.") {
                "self_attn."
            } else {
                ""
            };
            let part = if rest.starts_with("fc") { "mlp." } else { part };
            (at(&format!("encoder.layers.{layer}.{part}{rest}")), shape)
        }
    })
}
