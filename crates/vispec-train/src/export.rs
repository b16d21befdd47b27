//! Drafts in upstream's layout, as `vispec_models::Engine` and upstream itself load them.

use std::fs;
use std::path::Path;

use serde_json::json;
use vispec_models::TargetText;
use vispec_models::nn::Bias;

use crate::error::TrainError;
use crate::files;
use crate::network::{DraftShape, HostTensor, Parameters};

/// Positions that upstream's rotary table is made for. The drafts of this workspace have no limit.
const MAX_POSITIONS: usize = 8192;

/// Writes `config.json` and `model.safetensors` to `dir`, which is made if need be. The embedding
/// is the target's.
///
/// # Errors
/// [`TrainError::Io`] and [`TrainError::Checkpoint`] if files cannot be written,
/// [`TrainError::Device`] if the embedding cannot be read.
pub fn export(
    dir: &Path,
    shape: &DraftShape,
    parameters: &Parameters,
    target: &TargetText,
) -> Result<(), TrainError> {
    fs::create_dir_all(dir).map_err(files::at(dir))?;
    let embedding = HostTensor::from_device(target.embedding().table())?;
    let vocab_size = embedding.shape[0];
    let mut tensors = parameters.clone();
    tensors.insert("embed_tokens.weight".into(), embedding);
    let format = ("format", "pt".to_owned());
    files::write_tensors(&dir.join("model.safetensors"), &tensors, format)?;
    let text = format!("{:#}\n", config(shape, vocab_size));
    files::write(&dir.join("config.json"), text.as_bytes())
}

fn config(shape: &DraftShape, vocab_size: usize) -> serde_json::Value {
    let decoder = &shape.decoder;
    json!({
        "architectures": ["LlamaForCausalLM"],
        "bias": shape.fusion_bias == Bias::Yes,
        "hidden_act": "silu",
        "hidden_size": decoder.hidden,
        "intermediate_size": decoder.intermediate,
        "max_position_embeddings": MAX_POSITIONS,
        "model_type": "llama",
        "num_attention_heads": decoder.heads,
        "num_hidden_layers": decoder.layers,
        "num_key_value_heads": decoder.kv_heads,
        "qkv_bias": decoder.qkv_bias == Bias::Yes,
        "rms_norm_eps": decoder.rms_eps,
        "rope_scaling": null,
        "rope_theta": decoder.rope_theta,
        "tie_word_embeddings": false,
        "torch_dtype": "float32",
        "vocab_size": vocab_size,
    })
}
