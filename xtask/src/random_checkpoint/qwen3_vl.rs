//! The vision tower of Qwen3-VL, and its config.

use serde_json::{Map, Value, json};

use super::shape::{Bias, MERGED, Shape, TensorShape, TowerShape, push_linear, push_norm};
use super::text_files::entries;

/// Sides of patches: channels, frames, height, width.
const PATCH: [usize; 4] = [3, 2, 16, 16];

/// A tower with outputs of some intermediate blocks in addition to the last.
pub(super) struct Deepstack {
    pub(super) blocks: &'static [usize],
    /// Number of entries of the position embedding table.
    pub(super) positions: usize,
}

impl Deepstack {
    pub(super) fn push_tower(&self, shape: &Shape, all: &mut Vec<TensorShape>) {
        let width = shape.tower.hidden;
        let prefix = "model.visual";
        let name = format!("{prefix}.patch_embed.proj");
        let patch = [&[width], &PATCH[..]].concat();
        all.push(TensorShape::new(format!("{name}.weight"), &patch));
        all.push(TensorShape::new(format!("{name}.bias"), &[width]));
        let name = format!("{prefix}.pos_embed.weight");
        all.push(TensorShape::new(name, &[self.positions, width]));
        for block in 0..shape.tower.depth {
            push_block(&format!("{prefix}.blocks.{block}"), &shape.tower, all);
        }
        let merged = MERGED * width;
        push_merger(&format!("{prefix}.merger"), width, shape, all);
        for level in 0..self.blocks.len() {
            let name = format!("{prefix}.deepstack_merger_list.{level}");
            push_merger(&name, merged, shape, all);
        }
    }

    pub(super) fn fields(&self, shape: &Shape) -> Map<String, Value> {
        entries(json!({
            "tie_word_embeddings": true,
            "text_config": {
                "hidden_size": shape.hidden,
                "intermediate_size": shape.intermediate,
                "num_hidden_layers": shape.layers,
                "num_attention_heads": shape.heads,
                "num_key_value_heads": shape.kv_heads,
                "head_dim": shape.head_dim,
                "vocab_size": shape.vocab,
                "max_position_embeddings": shape.context,
                "dtype": "bfloat16",
                "rope_scaling": {
                    "mrope_interleaved": true,
                    "mrope_section": shape.rotary_sections,
                    "rope_type": "default",
                },
            },
            "vision_config": {
                "depth": shape.tower.depth,
                "hidden_size": shape.tower.hidden,
                "intermediate_size": shape.tower.intermediate,
                "num_heads": shape.tower.heads,
                "out_hidden_size": shape.hidden,
                "num_position_embeddings": self.positions,
                "deepstack_visual_indexes": self.blocks,
            },
        }))
    }
}

fn push_block(prefix: &str, tower: &TowerShape, all: &mut Vec<TensorShape>) {
    let (hidden, inner) = (tower.hidden, tower.intermediate);
    for norm in ["norm1", "norm2"] {
        push_norm(&format!("{prefix}.{norm}"), hidden, Bias::Yes, all);
    }
    for (part, dims) in [
        ("attn.qkv", [3 * hidden, hidden]),
        ("attn.proj", [hidden, hidden]),
        ("mlp.linear_fc1", [inner, hidden]),
        ("mlp.linear_fc2", [hidden, inner]),
    ] {
        push_linear(&format!("{prefix}.{part}"), dims, Bias::Yes, all);
    }
}

fn push_merger(prefix: &str, normed: usize, shape: &Shape, all: &mut Vec<TensorShape>) {
    let merged = MERGED * shape.tower.hidden;
    push_norm(&format!("{prefix}.norm"), normed, Bias::Yes, all);
    let name = format!("{prefix}.linear_fc1");
    push_linear(&name, [merged, merged], Bias::Yes, all);
    let name = format!("{prefix}.linear_fc2");
    push_linear(&name, [shape.hidden, merged], Bias::Yes, all);
}
