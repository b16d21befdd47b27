//! Shapes of models, and the tensors that they imply.

use clap::ValueEnum;
use serde_json::{Map, Value};

use super::qwen2_5_vl::Windows;
use super::qwen3_vl::Deepstack;

/// A model with known shapes.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ShapeName {
    /// Qwen2.5-VL-3B-Instruct, 7.5 GB
    #[value(name = "qwen2.5-vl-3b")]
    Qwen25Vl3b,
    /// Qwen2.5-VL-7B-Instruct, 16.6 GB
    #[value(name = "qwen2.5-vl-7b")]
    Qwen25Vl7b,
    /// Qwen3-VL-2B-Instruct, 4.3 GB
    #[value(name = "qwen3-vl-2b")]
    Qwen3Vl2b,
    /// Qwen3-VL-4B-Instruct, 8.9 GB
    #[value(name = "qwen3-vl-4b")]
    Qwen3Vl4b,
    /// The architecture of Qwen2.5-VL in less than a megabyte
    Tiny,
    /// The architecture of Qwen3-VL in less than a megabyte
    #[value(name = "tiny-qwen3")]
    TinyQwen3,
}

/// The shape of a checkpoint.
pub(super) struct Shape {
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    /// Pairs of dimensions of a head that rotate with time, height and width.
    pub(super) rotary_sections: [usize; 3],
    pub(super) vocab: usize,
    pub(super) head: OutputHead,
    pub(super) context: usize,
    pub(super) tower: TowerShape,
    pub(super) family: Family,
    /// Maximum number of bytes of tensors in a file.
    pub(super) shard_bytes: usize,
}

/// The source of the output matrix.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OutputHead {
    /// The embedding table.
    Tied,
    /// A separate matrix.
    Own,
}

/// Shape parameters that vision towers of all families share.
pub(super) struct TowerShape {
    pub(super) depth: usize,
    pub(super) hidden: usize,
    pub(super) intermediate: usize,
    pub(super) heads: usize,
}

/// A model family, with the parameters specific to it.
pub(super) enum Family {
    Qwen25(Windows),
    Qwen3(Deepstack),
}

/// Number of patches that become one image token.
pub(super) const MERGED: usize = 4;
/// Vocabulary size of the published models.
const VOCAB: usize = 151_936;
/// Approximate maximum size of a published file in bytes.
const SHARD_BYTES: usize = 4_000_000_000;

impl ShapeName {
    pub(super) fn shape(self) -> Shape {
        match self {
            Self::Qwen25Vl3b => Shape {
                layers: 36,
                ..qwen25(2_048, 11_008, [16, 2])
            },
            Self::Qwen25Vl7b => Shape {
                vocab: 152_064,
                head: OutputHead::Own,
                ..qwen25(3_584, 18_944, [28, 4])
            },
            Self::Qwen3Vl2b => qwen3(2_048, 6_144, 28, 16),
            Self::Qwen3Vl4b => qwen3(2_560, 9_728, 36, 32),
            Self::Tiny => Shape {
                hidden: 64,
                intermediate: 128,
                layers: 2,
                heads: 4,
                kv_heads: 2,
                head_dim: 16,
                rotary_sections: [2, 3, 3],
                vocab: 1_024,
                head: OutputHead::Tied,
                context: 4_096,
                tower: TowerShape {
                    depth: 2,
                    hidden: 64,
                    intermediate: 96,
                    heads: 4,
                },
                family: Family::Qwen25(Windows {
                    full_attention_blocks: &[1],
                }),
                shard_bytes: 200_000,
            },
            Self::TinyQwen3 => Shape {
                hidden: 64,
                intermediate: 128,
                layers: 3,
                heads: 4,
                kv_heads: 2,
                head_dim: 24,
                rotary_sections: [4, 4, 4],
                vocab: 1_024,
                head: OutputHead::Tied,
                context: 4_096,
                tower: TowerShape {
                    depth: 3,
                    hidden: 64,
                    intermediate: 96,
                    heads: 4,
                },
                family: Family::Qwen3(Deepstack {
                    blocks: &[0, 1],
                    positions: 64,
                }),
                shard_bytes: 200_000,
            },
        }
    }
}

/// Returns the shape of Qwen2.5-VL with 28 layers and the given numbers of query and key-value
/// heads.
fn qwen25(hidden: usize, intermediate: usize, [heads, kv_heads]: [usize; 2]) -> Shape {
    Shape {
        hidden,
        intermediate,
        layers: 28,
        heads,
        kv_heads,
        head_dim: 128,
        rotary_sections: [16, 24, 24],
        vocab: VOCAB,
        head: OutputHead::Tied,
        context: 128_000,
        tower: TowerShape {
            depth: 32,
            hidden: 1_280,
            intermediate: 3_420,
            heads: 16,
        },
        family: Family::Qwen25(Windows {
            full_attention_blocks: &[7, 15, 23, 31],
        }),
        shard_bytes: SHARD_BYTES,
    }
}

/// Returns the shape of the published sizes of Qwen3-VL that tie the output head to the embedding.
fn qwen3(hidden: usize, intermediate: usize, layers: usize, heads: usize) -> Shape {
    Shape {
        hidden,
        intermediate,
        layers,
        heads,
        kv_heads: 8,
        head_dim: 128,
        rotary_sections: [24, 20, 20],
        vocab: VOCAB,
        head: OutputHead::Tied,
        context: 262_144,
        tower: TowerShape {
            depth: 24,
            hidden: 1_024,
            intermediate: 4_096,
            heads: 16,
        },
        family: Family::Qwen3(Deepstack {
            blocks: &[5, 11, 17],
            positions: 2_304,
        }),
        shard_bytes: SHARD_BYTES,
    }
}

/// Name and shape of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TensorShape {
    pub(super) name: String,
    pub(super) dims: Vec<usize>,
}

impl TensorShape {
    pub(super) fn new(name: impl Into<String>, dims: &[usize]) -> Self {
        Self {
            name: name.into(),
            dims: dims.to_vec(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Returns whether this tensor scales a normalised vector: only such weights have one axis.
    pub(super) fn is_norm(&self) -> bool {
        self.dims.len() == 1 && self.name.ends_with(".weight")
    }
}

/// Whether linear layers or norms have biases.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bias {
    Yes,
    No,
}

impl Shape {
    /// Returns all tensors.
    pub(super) fn tensors(&self) -> Vec<TensorShape> {
        let model = self.family.model();
        let hidden = self.hidden;
        let mut all = vec![TensorShape::new(
            format!("{model}.embed_tokens.weight"),
            &[self.vocab, hidden],
        )];
        for layer in 0..self.layers {
            self.push_layer(&format!("{model}.layers.{layer}"), &mut all);
        }
        all.push(TensorShape::new(format!("{model}.norm.weight"), &[hidden]));
        if self.head == OutputHead::Own {
            let head = [self.vocab, hidden];
            push_linear("lm_head", head, Bias::No, &mut all);
        }
        match &self.family {
            Family::Qwen25(windows) => windows.push_tower(self, &mut all),
            Family::Qwen3(deepstack) => deepstack.push_tower(self, &mut all),
        }
        all
    }

    fn push_layer(&self, prefix: &str, all: &mut Vec<TensorShape>) {
        let (hidden, inner) = (self.hidden, self.intermediate);
        let queries = self.heads * self.head_dim;
        let kv = self.kv_heads * self.head_dim;
        let bias = self.family.attention_bias();
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            push_norm(&format!("{prefix}.{norm}"), hidden, Bias::No, all);
        }
        if let Family::Qwen3(_) = self.family {
            for norm in ["q_norm", "k_norm"] {
                let name = format!("{prefix}.self_attn.{norm}");
                push_norm(&name, self.head_dim, Bias::No, all);
            }
        }
        for (part, dims, bias) in [
            ("self_attn.q_proj", [queries, hidden], bias),
            ("self_attn.k_proj", [kv, hidden], bias),
            ("self_attn.v_proj", [kv, hidden], bias),
            ("self_attn.o_proj", [hidden, queries], Bias::No),
            ("mlp.gate_proj", [inner, hidden], Bias::No),
            ("mlp.up_proj", [inner, hidden], Bias::No),
            ("mlp.down_proj", [hidden, inner], Bias::No),
        ] {
            push_linear(&format!("{prefix}.{part}"), dims, bias, all);
        }
    }

    /// Returns the fields of `config.json` for this shape, to overwrite those of the fixture.
    pub(super) fn fields(&self) -> Map<String, Value> {
        match &self.family {
            Family::Qwen25(windows) => windows.fields(self),
            Family::Qwen3(deepstack) => deepstack.fields(self),
        }
    }
}

impl Family {
    /// Returns the carried model of the family whose text files are adapted.
    pub(super) fn fixture(&self) -> &'static str {
        match self {
            Self::Qwen25(_) => "qwen-tied",
            Self::Qwen3(_) => "qwen3-tied",
        }
    }

    /// Returns the architecture name of the family's EAGLE-3 drafts in vLLM.
    pub(super) fn eagle3(&self) -> &'static str {
        match self {
            Self::Qwen25(_) => "Eagle3Qwen2_5vlForCausalLM",
            Self::Qwen3(_) => "Eagle3Qwen3vlForCausalLM",
        }
    }

    /// Returns the prefix of the language model's tensors.
    fn model(&self) -> &'static str {
        match self {
            Self::Qwen25(_) => "model",
            Self::Qwen3(_) => "model.language_model",
        }
    }

    fn attention_bias(&self) -> Bias {
        match self {
            Self::Qwen25(_) => Bias::Yes,
            Self::Qwen3(_) => Bias::No,
        }
    }
}

pub(super) fn push_linear(name: &str, dims: [usize; 2], bias: Bias, all: &mut Vec<TensorShape>) {
    all.push(TensorShape::new(format!("{name}.weight"), &dims));
    if bias == Bias::Yes {
        all.push(TensorShape::new(format!("{name}.bias"), &dims[..1]));
    }
}

pub(super) fn push_norm(name: &str, width: usize, bias: Bias, all: &mut Vec<TensorShape>) {
    all.push(TensorShape::new(format!("{name}.weight"), &[width]));
    if bias == Bias::Yes {
        all.push(TensorShape::new(format!("{name}.bias"), &[width]));
    }
}
