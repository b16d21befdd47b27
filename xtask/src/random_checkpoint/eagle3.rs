//! EAGLE-3 drafts for the shapes, in the format that vLLM reads.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use safetensors::serialize_to_file;
use safetensors::tensor::{Dtype, View};
use serde_json::{Map, Value, json};

use super::WeightsKept;
use super::drawn;
use super::noise::Noise;
use super::shape::{Bias, Shape, TensorShape, push_linear, push_norm};
use super::tensors::Drawn;
use super::text_files::entries;

/// Number of outputs of published drafts.
const OUTPUTS: usize = 32_000;
/// Number of hidden states of the target that a draft reads.
const STATES: usize = 3;
/// Config fields that a draft shares with its target's language model.
const SHARED: [&str; 8] = [
    "head_dim",
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_key_value_heads",
    "rope_scaling",
    "vocab_size",
];

/// A tensor in a file of weights.
enum Stored<'a> {
    Drawn(Drawn<'a>),
    /// Offset from each of the draft's ids to the target's id, with the shape of the table.
    ToTarget(Vec<i64>, [usize; 1]),
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Self::Drawn(drawn) => drawn.dtype(),
            Self::ToTarget(..) => Dtype::I64,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Self::Drawn(drawn) => drawn.shape(),
            Self::ToTarget(_, shape) => shape,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Drawn(drawn) => drawn.data(),
            Self::ToTarget(offsets, _) => offsets.iter().flat_map(|o| o.to_le_bytes()).collect(),
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Self::Drawn(drawn) => drawn.data_len(),
            Self::ToTarget(offsets, _) => size_of::<i64>() * offsets.len(),
        }
    }
}

/// Writes config and weights of a draft for a target of this shape.
pub(super) fn write(dir: &Path, shape: &Shape, weights: WeightsKept, seed: u64) -> Result<()> {
    if shape.layers < STATES {
        bail!(
            "an EAGLE-3 draft reads {STATES} hidden states of its target, but the shape has {} layers",
            shape.layers
        );
    }
    let path = dir.join("config.json");
    fs::write(&path, serde_json::to_vec_pretty(&config(shape))?)
        .with_context(|| path.display().to_string())?;
    let tensors = tensors(shape);
    let offsets = to_target(shape);
    let n_offsets = [offsets.len()];
    let table = [("d2t", Stored::ToTarget(offsets, n_offsets))];
    match weights {
        WeightsKept::Described => drawn::write(dir, &tensors, table),
        WeightsKept::Stored => {
            let noise = Noise::new(seed);
            let drawn = tensors.iter().map(|tensor| {
                let noise = &noise;
                (&tensor.name[..], Stored::Drawn(Drawn { tensor, noise }))
            });
            let path = dir.join("model.safetensors");
            let metadata = [("format".to_owned(), "pt".to_owned())].into();
            serialize_to_file(drawn.chain(table), Some(metadata), &path)
                .with_context(|| path.display().to_string())
        }
    }
}

/// Returns the number of tokens that the draft can propose.
pub(super) fn outputs(shape: &Shape) -> usize {
    OUTPUTS.min(shape.vocab / 4)
}

/// Returns the offsets to the target's ids; the draft's tokens are spread over the vocabulary.
fn to_target(shape: &Shape) -> Vec<i64> {
    let outputs = outputs(shape);
    let offset = |id: usize| (id * shape.vocab / outputs - id) as i64;
    (0..outputs).map(offset).collect()
}

/// Returns all tensors except the token table; the draft uses the target's embedding.
pub(super) fn tensors(shape: &Shape) -> Vec<TensorShape> {
    let (hidden, inner) = (shape.hidden, shape.intermediate);
    let queries = shape.heads * shape.head_dim;
    let kv = shape.kv_heads * shape.head_dim;
    // An input row is an embedding concatenated with a hidden state.
    let pair = 2 * hidden;
    let mut all = Vec::new();
    for norm in ["hidden_norm", "input_layernorm", "post_attention_layernorm"] {
        push_norm(&format!("midlayer.{norm}"), hidden, Bias::No, &mut all);
    }
    push_norm("norm", hidden, Bias::No, &mut all);
    for (name, dims) in [
        ("fc", [hidden, STATES * hidden]),
        ("midlayer.self_attn.q_proj", [queries, pair]),
        ("midlayer.self_attn.k_proj", [kv, pair]),
        ("midlayer.self_attn.v_proj", [kv, pair]),
        ("midlayer.self_attn.o_proj", [hidden, queries]),
        ("midlayer.mlp.gate_proj", [inner, hidden]),
        ("midlayer.mlp.up_proj", [inner, hidden]),
        ("midlayer.mlp.down_proj", [hidden, inner]),
        ("lm_head", [outputs(shape), hidden]),
    ] {
        push_linear(name, dims, Bias::No, &mut all);
    }
    all
}

fn config(shape: &Shape) -> Map<String, Value> {
    let mut of_target = shape.fields();
    if let Some(Value::Object(text)) = of_target.remove("text_config") {
        of_target = text;
    }
    let mut fields = entries(json!({
        "architectures": [shape.family.eagle3()],
        "draft_vocab_size": outputs(shape),
        "hidden_act": "silu",
        "num_hidden_layers": 1,
        "rms_norm_eps": 1e-6,
        "rope_theta": 5e6,
        "tie_word_embeddings": false,
        "torch_dtype": "bfloat16",
    }));
    let shared = SHARED.iter();
    let shared = shared.filter_map(|&name| of_target.remove_entry(name));
    fields.extend(shared);
    fields
}
