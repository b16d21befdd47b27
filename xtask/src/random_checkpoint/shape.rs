//! Shapes of models, and the tensors that follow from them.

use clap::ValueEnum;

/// A model whose shapes are known.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ShapeName {
    /// Qwen2.5-VL-3B-Instruct, 7.5 GB
    #[value(name = "qwen2.5-vl-3b")]
    Qwen25Vl3b,
    /// The same architecture in under a megabyte
    Tiny,
}

/// Everything that a checkpoint of this architecture depends on.
pub(super) struct Shape {
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    /// Pairs of a head that turn with time, height and width.
    pub(super) rotary_sections: [usize; 3],
    pub(super) vocab: usize,
    pub(super) context: usize,
    pub(super) vision: VisionShape,
    /// Bytes of tensors from which on a new file is begun.
    pub(super) shard_bytes: usize,
}

/// The vision tower.
pub(super) struct VisionShape {
    pub(super) depth: usize,
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) heads: usize,
    pub(super) full_attention_blocks: &'static [usize],
}

/// Sides of the patches of all models of the family: channels, frames, height, width.
const PATCH: [usize; 4] = [3, 2, 14, 14];
/// Patches that become one image token.
const MERGED: usize = 4;

impl ShapeName {
    pub(super) fn shape(self) -> Shape {
        match self {
            Self::Qwen25Vl3b => Shape {
                hidden: 2_048,
                intermediate: 11_008,
                layers: 36,
                heads: 16,
                kv_heads: 2,
                rotary_sections: [16, 24, 24],
                vocab: 151_936,
                context: 128_000,
                vision: VisionShape {
                    depth: 32,
                    hidden: 1_280,
                    intermediate: 3_420,
                    heads: 16,
                    full_attention_blocks: &[7, 15, 23, 31],
                },
                shard_bytes: 4_000_000_000,
            },
            Self::Tiny => Shape {
                hidden: 64,
                intermediate: 128,
                layers: 2,
                heads: 4,
                kv_heads: 2,
                rotary_sections: [2, 3, 3],
                vocab: 1_024,
                context: 4_096,
                vision: VisionShape {
                    depth: 2,
                    hidden: 64,
                    intermediate: 96,
                    heads: 4,
                    full_attention_blocks: &[1],
                },
                shard_bytes: 200_000,
            },
        }
    }
}

/// Name and shape of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TensorShape {
    pub(super) name: String,
    pub(super) dims: Vec<usize>,
}

impl TensorShape {
    fn new(name: impl Into<String>, dims: &[usize]) -> Self {
        Self {
            name: name.into(),
            dims: dims.to_vec(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether this scales a normalised vector: the only weights that have one axis.
    pub(super) fn is_norm(&self) -> bool {
        self.dims.len() == 1 && self.name.ends_with(".weight")
    }
}

impl Shape {
    /// All tensors; there is no output head, the embedding table serves as one.
    pub(super) fn tensors(&self) -> Vec<TensorShape> {
        let hidden = self.hidden;
        let mut all = vec![TensorShape::new(
            "model.embed_tokens.weight",
            &[self.vocab, hidden],
        )];
        for layer in 0..self.layers {
            self.push_layer(layer, &mut all);
        }
        all.push(TensorShape::new("model.norm.weight", &[hidden]));
        let width = self.vision.hidden;
        let patch = [&[width], &PATCH[..]].concat();
        all.push(TensorShape::new("visual.patch_embed.proj.weight", &patch));
        for block in 0..self.vision.depth {
            self.vision.push_block(block, &mut all);
        }
        let merged = MERGED * width;
        all.push(TensorShape::new("visual.merger.ln_q.weight", &[width]));
        push_linear("visual.merger.mlp.0", [merged, merged], true, &mut all);
        push_linear("visual.merger.mlp.2", [hidden, merged], true, &mut all);
        all
    }

    fn push_layer(&self, layer: usize, all: &mut Vec<TensorShape>) {
        let prefix = format!("model.layers.{layer}");
        let (hidden, inner) = (self.hidden, self.intermediate);
        let kv = hidden / self.heads * self.kv_heads;
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            let name = format!("{prefix}.{norm}.weight");
            all.push(TensorShape::new(name, &[hidden]));
        }
        for (part, dims, bias) in [
            ("self_attn.q_proj", [hidden, hidden], true),
            ("self_attn.k_proj", [kv, hidden], true),
            ("self_attn.v_proj", [kv, hidden], true),
            ("self_attn.o_proj", [hidden, hidden], false),
            ("mlp.gate_proj", [inner, hidden], false),
            ("mlp.up_proj", [inner, hidden], false),
            ("mlp.down_proj", [hidden, inner], false),
        ] {
            push_linear(&format!("{prefix}.{part}"), dims, bias, all);
        }
    }
}

impl VisionShape {
    fn push_block(&self, block: usize, all: &mut Vec<TensorShape>) {
        let prefix = format!("visual.blocks.{block}");
        let (hidden, inner) = (self.hidden, self.intermediate);
        for norm in ["norm1", "norm2"] {
            let name = format!("{prefix}.{norm}.weight");
            all.push(TensorShape::new(name, &[hidden]));
        }
        for (part, dims) in [
            ("attn.qkv", [3 * hidden, hidden]),
            ("attn.proj", [hidden, hidden]),
            ("mlp.gate_proj", [inner, hidden]),
            ("mlp.up_proj", [inner, hidden]),
            ("mlp.down_proj", [hidden, inner]),
        ] {
            push_linear(&format!("{prefix}.{part}"), dims, true, all);
        }
    }
}

fn push_linear(name: &str, dims: [usize; 2], bias: bool, all: &mut Vec<TensorShape>) {
    all.push(TensorShape::new(format!("{name}.weight"), &dims));
    if bias {
        all.push(TensorShape::new(format!("{name}.bias"), &dims[..1]));
    }
}
