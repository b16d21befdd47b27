//! Writing of the checkpoint: first the text files, which lessons are prepared with, then the
//! weights.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use safetensors::View as _;
use serde_json::json;
use vispec_models::llava::ClipConfig;
use xxhash_rust::xxh3::Xxh3;

use super::super::checkpoint::{
    damaged, edit, in_bf16, kept_weights, metadata_entry, plain_files, replace,
};
use crate::error::TrainError;
use crate::files::{self, StoredTensor, at};
use crate::network::{HostTensor, Parameters};

/// Prefixes of the weights that a new tower replaces, in older and newer checkpoints.
const VISION: [&str; 4] = [
    "vision_tower.",
    "multi_modal_projector.",
    "model.vision_tower.",
    "model.multi_modal_projector.",
];

const WEIGHTS_FILE: &str = "model.safetensors";

/// The files next to the weights of a tower.
const TOWER_TEXTS: [&str; 2] = ["config.json", "preprocessor_config.json"];

/// Key of a tower's metadata: the hash of the language model's weights.
const LANGUAGE_MODEL: &str = "language_model";

/// Writes all files except the weights: those of `base`, changed for another vision tower.
pub(super) fn write_texts(base: &Path, dir: &Path, vision: &ClipConfig) -> Result<(), TrainError> {
    let names = plain_files(base)?;
    replace(dir, |partial| texts(base, names, partial, vision))
}

fn texts(
    base: &Path,
    names: impl IntoIterator<Item = PathBuf>,
    dir: &Path,
    vision: &ClipConfig,
) -> Result<(), TrainError> {
    let side = vision.image_size;
    for name in names {
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

/// Writes the whole checkpoint to `dir`, and to `tower` only what was trained: the vision tower and
/// the projector, from which [`join`] makes the same checkpoint.
pub(super) fn export(
    base: &Path,
    (dir, tower): (&Path, &Path),
    vision: &ClipConfig,
    parameters: &Parameters,
) -> Result<(), TrainError> {
    let language = language_tensors(base)?;
    let seeing = vision_tensors(vision, parameters);
    replace(tower, |partial| {
        texts(base, TOWER_TEXTS.map(PathBuf::from), partial, vision)?;
        let entry = (LANGUAGE_MODEL, tensors_hash(&language));
        files::write_tensors(&partial.join(WEIGHTS_FILE), seeing.clone(), entry)
    })?;
    write_checkpoint((base, dir), vision, language, seeing)
}

/// Joins a language model and a vision tower that was trained for it. Writes the checkpoint to the
/// folder `checkpoint-N` of `out`, for N image tokens, and returns its path.
///
/// # Errors
/// * [`TrainError::Checkpoint`] if `tower` was not written by the training of a
///   [`PictureCourse`](super::PictureCourse), belongs to another language model, or is damaged, or
///   if the language model does not have the layout of LLaVA-1.5.
/// * [`TrainError::Model`] if a config cannot be read.
/// * Any error of reading and writing files.
pub fn join(language_model: &Path, tower: &Path, out: &Path) -> Result<PathBuf, TrainError> {
    super::language_model(language_model)?;
    let vision = super::language_model(tower)?.vision;
    let weights = tower.join(WEIGHTS_FILE);
    let language = language_tensors(language_model)?;
    let found = tensors_hash(&language);
    match metadata_entry(&weights, LANGUAGE_MODEL)? {
        Some(expected) if expected == found => {}
        Some(expected) => {
            let reason = format!(
                "it was trained for another language model: its weights have the hash {expected}, \
                 those of {} have {found}",
                language_model.display()
            );
            return Err(damaged(&weights, reason));
        }
        None => {
            let reason = "it names no language model, expected a vision tower of make_target";
            return Err(damaged(&weights, reason));
        }
    }
    let dir = out.join(format!("checkpoint-{}", vision.grid_side().pow(2)));
    fs::create_dir_all(out).map_err(at(out))?;
    let seeing = kept_weights(&weights, is_vision)?;
    write_checkpoint((language_model, &dir), &vision, language, seeing)?;
    Ok(dir)
}

type Tensors = HashMap<String, StoredTensor<'static>>;

fn write_checkpoint(
    (base, dir): (&Path, &Path),
    vision: &ClipConfig,
    language: Tensors,
    seeing: Tensors,
) -> Result<(), TrainError> {
    replace(dir, |partial| {
        texts(base, plain_files(base)?, partial, vision)?;
        let tensors = language.into_iter().chain(seeing);
        let entry = ("format", "pt".to_owned());
        files::write_tensors(&partial.join(WEIGHTS_FILE), tensors, entry)
    })
}

fn is_vision(name: &str) -> bool {
    VISION.iter().any(|prefix| name.starts_with(prefix))
}

/// Reads the weights of a checkpoint, except those for pictures.
fn language_tensors(base: &Path) -> Result<Tensors, TrainError> {
    let mut tensors = Tensors::new();
    for name in plain_files(base)? {
        if name.extension().is_some_and(|kind| kind == "safetensors") {
            tensors.extend(kept_weights(&base.join(&name), |name| !is_vision(name))?);
        }
    }
    Ok(tensors)
}

fn vision_tensors(vision: &ClipConfig, parameters: &Parameters) -> Tensors {
    let mut tensors = Tensors::new();
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
    tensors
}

/// Returns a hash of names, shapes and values.
fn tensors_hash(tensors: &Tensors) -> String {
    let mut names: Vec<&String> = tensors.keys().collect();
    names.sort();
    let mut hash = Xxh3::new();
    for name in names {
        let tensor = &tensors[name];
        hash.update(format!("{name} {:?}\0", tensor.shape()).as_bytes());
        hash.update(&tensor.data());
    }
    format!("{:016x}", hash.digest())
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
