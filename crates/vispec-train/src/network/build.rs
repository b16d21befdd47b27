//! Shapes of drafts, and networks made of named parameters.

use burn::module::Param;
use burn::tensor::{Device, Tensor};
use vispec_models::nn::{Bias, DecoderConfig};

use super::Network;
use super::adaptor::VisionAdaptor;
use super::attention::Attention;
use super::draft::{DecoderLayer, DraftNetwork, GatedMlp};
use super::layers::{Linear, RmsNorm};
use super::medusa::{MedusaNetwork, ResidualBlock};
use super::parameters::{HostTensor, Parameters};

/// Kinds of networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkKind {
    /// With a vision adaptor of this many learned queries.
    Vispec {
        /// One more than there are compressed image tokens.
        n_queries: usize,
    },
    /// Without vision parts.
    Eagle2,
    /// Independent heads.
    Medusa {
        /// Number of heads.
        n_heads: usize,
    },
}

/// Everything that decides which parameters a draft has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DraftShape {
    /// The kind.
    pub kind: NetworkKind,
    /// The decoder; Medusa uses its width only.
    pub decoder: DecoderConfig,
    /// Whether `fc` and `img_fc` have biases.
    pub fusion_bias: Bias,
}

impl DraftShape {
    /// Names and shapes of all trained parameters, in the order of upstream's checkpoints.
    #[must_use]
    pub fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let mut list = Vec::new();
        let mut linear = |name: &str, outputs: usize, inputs: usize, bias: Bias| {
            list.push((format!("{name}.weight"), vec![outputs, inputs]));
            if bias == Bias::Yes {
                list.push((format!("{name}.bias"), vec![outputs]));
            }
        };
        let DecoderConfig {
            hidden,
            intermediate,
            heads,
            kv_heads,
            head_dim,
            qkv_bias,
            ..
        } = self.decoder;
        let width = heads * head_dim;
        if let NetworkKind::Medusa { n_heads } = self.kind {
            for head in 0..n_heads {
                linear(
                    &format!("medusa_head.{head}.0.linear"),
                    hidden,
                    hidden,
                    Bias::Yes,
                );
            }
            return list;
        }
        linear("fc", hidden, 2 * hidden, self.fusion_bias);
        if let NetworkKind::Vispec { .. } = self.kind {
            linear("img_fc", hidden, 2 * hidden, self.fusion_bias);
            linear("imadpt.k_proj", width, hidden, qkv_bias);
            linear("imadpt.v_proj", width, hidden, qkv_bias);
            linear("imadpt.o_proj", hidden, width, Bias::No);
        }
        for layer in 0..self.decoder.layers {
            let at = |name: &str| format!("layers.{layer}.{name}");
            linear(&at("self_attn.q_proj"), width, hidden, qkv_bias);
            linear(
                &at("self_attn.k_proj"),
                kv_heads * head_dim,
                hidden,
                qkv_bias,
            );
            linear(
                &at("self_attn.v_proj"),
                kv_heads * head_dim,
                hidden,
                qkv_bias,
            );
            linear(&at("self_attn.o_proj"), hidden, width, Bias::No);
            linear(&at("mlp.gate_proj"), intermediate, hidden, Bias::No);
            linear(&at("mlp.up_proj"), intermediate, hidden, Bias::No);
            linear(&at("mlp.down_proj"), hidden, intermediate, Bias::No);
        }
        for layer in 0..self.decoder.layers {
            let at = |name: &str| format!("layers.{layer}.{name}.weight");
            if layer > 0 {
                list.push((at("input_layernorm"), vec![hidden]));
            }
            list.push((at("post_attention_layernorm"), vec![hidden]));
        }
        if let NetworkKind::Vispec { n_queries } = self.kind {
            list.push(("imadpt.q".into(), vec![n_queries, heads, head_dim]));
        }
        list
    }

    /// A network made of `parameters` on `device`.
    ///
    /// # Panics
    /// If a parameter of [`DraftShape::parameters`] is not there.
    #[must_use]
    pub fn build(&self, parameters: &Parameters, device: &Device) -> Network {
        let source = Source { parameters, device };
        match self.kind {
            NetworkKind::Medusa { n_heads } => Network::Medusa(source.medusa(n_heads)),
            NetworkKind::Vispec { .. } | NetworkKind::Eagle2 => Network::Draft(source.draft(self)),
        }
    }
}

/// Parameters on their way to a device.
pub(super) struct Source<'p> {
    pub(super) parameters: &'p Parameters,
    pub(super) device: &'p Device,
}

impl Source<'_> {
    fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        match self.parameters.get(name) {
            Some(tensor) => tensor.to_device(self.device),
            None => panic!("parameter {name} is not there"),
        }
    }

    pub(super) fn linear(&self, name: &str) -> Linear {
        let weight = format!("{name}.weight");
        let transposed = self
            .parameters
            .get(&weight)
            .cloned()
            .map(HostTensor::transposed);
        let Some(transposed) = transposed else {
            panic!("parameter {weight} is not there")
        };
        let bias = format!("{name}.bias");
        let bias = self
            .parameters
            .contains_key(&bias)
            .then(|| self.tensor(&bias));
        Linear::new(transposed.to_device(self.device), bias)
    }

    pub(super) fn norm(&self, name: &str, eps: f64) -> RmsNorm {
        RmsNorm::new(self.tensor(&format!("{name}.weight")), eps)
    }

    fn medusa(&self, n_heads: usize) -> MedusaNetwork {
        let head = |head| {
            vec![ResidualBlock {
                linear: self.linear(&format!("medusa_head.{head}.0.linear")),
            }]
        };
        MedusaNetwork {
            medusa_head: (0..n_heads).map(head).collect(),
        }
    }

    pub(super) fn layer(&self, layer: usize, eps: f64) -> DecoderLayer {
        let at = |name: &str| format!("layers.{layer}.{name}");
        let linear = |name: &str| self.linear(&at(name));
        let has_input_norm = self.parameters.contains_key(&at("input_layernorm.weight"));
        DecoderLayer {
            input_layernorm: has_input_norm.then(|| self.norm(&at("input_layernorm"), eps)),
            self_attn: Attention {
                q_proj: linear("self_attn.q_proj"),
                k_proj: linear("self_attn.k_proj"),
                v_proj: linear("self_attn.v_proj"),
                o_proj: linear("self_attn.o_proj"),
            },
            post_attention_layernorm: self.norm(&at("post_attention_layernorm"), eps),
            mlp: GatedMlp {
                gate_proj: linear("mlp.gate_proj"),
                up_proj: linear("mlp.up_proj"),
                down_proj: linear("mlp.down_proj"),
            },
        }
    }

    fn draft(&self, shape: &DraftShape) -> DraftNetwork {
        let vision = matches!(shape.kind, NetworkKind::Vispec { .. });
        DraftNetwork {
            fc: self.linear("fc"),
            layers: (0..shape.decoder.layers)
                .map(|layer| self.layer(layer, shape.decoder.rms_eps))
                .collect(),
            imadpt: vision.then(|| VisionAdaptor {
                q: Param::from_tensor(self.tensor("imadpt.q")),
                k_proj: self.linear("imadpt.k_proj"),
                v_proj: self.linear("imadpt.v_proj"),
                o_proj: self.linear("imadpt.o_proj"),
            }),
            img_fc: vision.then(|| self.linear("img_fc")),
            config: shape.decoder,
        }
    }
}
