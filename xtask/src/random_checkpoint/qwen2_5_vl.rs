//! The vision tower of Qwen2.5-VL, and its config.

use serde_json::{Map, Value, json};

use super::shape::{
    Bias, MERGED, OutputHead, Shape, TensorShape, TowerShape, push_linear, push_norm,
};
use super::text_files::entries;

/// Sides of patches: channels, frames, height, width.
const PATCH: [usize; 4] = [3, 2, 14, 14];

/// A tower with window attention.
pub(super) struct Windows {
    pub(super) full_attention_blocks: &'static [usize],
}

impl Windows {
    pub(super) fn push_tower(&self, shape: &Shape, all: &mut Vec<TensorShape>) {
        let width = shape.tower.hidden;
        let patch = [&[width], &PATCH[..]].concat();
        all.push(TensorShape::new("visual.patch_embed.proj.weight", &patch));
        for block in 0..shape.tower.depth {
            push_block(&format!("visual.blocks.{block}"), &shape.tower, all);
        }
        let merged = MERGED * width;
        push_norm("visual.merger.ln_q", width, Bias::No, all);
        push_linear("visual.merger.mlp.0", [merged, merged], Bias::Yes, all);
        push_linear(
            "visual.merger.mlp.2",
            [shape.hidden, merged],
            Bias::Yes,
            all,
        );
    }

    pub(super) fn fields(&self, shape: &Shape) -> Map<String, Value> {
        entries(json!({
            "hidden_size": shape.hidden,
            "intermediate_size": shape.intermediate,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "num_key_value_heads": shape.kv_heads,
            "vocab_size": shape.vocab,
            "max_position_embeddings": shape.context,
            "tie_word_embeddings": shape.head == OutputHead::Tied,
            "torch_dtype": "bfloat16",
            "rope_scaling": { "type": "mrope", "mrope_section": shape.rotary_sections },
            "vision_config": {
                "depth": shape.tower.depth,
                "hidden_size": shape.tower.hidden,
                "intermediate_size": shape.tower.intermediate,
                "num_heads": shape.tower.heads,
                "out_hidden_size": shape.hidden,
                "fullatt_block_indexes": self.full_attention_blocks,
            },
        }))
    }
}

fn push_block(prefix: &str, tower: &TowerShape, all: &mut Vec<TensorShape>) {
    let (hidden, inner) = (tower.hidden, tower.intermediate);
    for norm in ["norm1", "norm2"] {
        push_norm(&format!("{prefix}.{norm}"), hidden, Bias::No, all);
    }
    for (part, dims) in [
        ("attn.qkv", [3 * hidden, hidden]),
        ("attn.proj", [hidden, hidden]),
        ("mlp.gate_proj", [inner, hidden]),
        ("mlp.up_proj", [inner, hidden]),
        ("mlp.down_proj", [hidden, inner]),
    ] {
        push_linear(&format!("{prefix}.{part}"), dims, Bias::Yes, all);
    }
}
