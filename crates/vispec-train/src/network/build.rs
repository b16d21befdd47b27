//! Shapes of drafts, and construction of networks from named parameters.

use burn::module::Param;
use burn::tensor::{Device, Tensor};
use vispec_models::nn::{Bias, DecoderConfig};

use super::Network;
use super::adaptor::VisionAdaptor;
use super::attention::Attention;
use super::draft::{DecoderLayer, DraftNetwork, GatedMlp};
use super::eagle3::{Eagle3Layer, Eagle3Network};
use super::layers::{LayerNorm, Linear, RmsNorm};
use super::medusa::{MedusaNetwork, ResidualBlock};
use super::parameters::{HostTensor, Parameters};

/// The kind of a draft network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NetworkKind {
    /// ViSpec, with a vision adaptor.
    Vispec {
        /// Number of learned queries: one more than the number of compressed image tokens.
        n_queries: usize,
    },
    /// EAGLE-2, without vision parts.
    Eagle2,
    /// EAGLE-3: reads several states of the target, and has a final norm and a layer that reads
    /// embeddings and hidden states side by side.
    Eagle3 {
        /// States of the residual stream that the draft reads, numbered as in `vispec_models`.
        states: [usize; 3],
        /// Number of learned queries of the vision adaptor; 0 without one.
        n_queries: usize,
        /// Number of tokens that the draft's own head scores; 0 without one.
        head_tokens: usize,
    },
    /// Medusa: independent heads.
    Medusa {
        /// Number of heads.
        n_heads: usize,
    },
}

/// Everything that determines the parameters of a draft.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DraftShape {
    /// Kind of the network.
    pub kind: NetworkKind,
    /// The decoder; Medusa uses only its width.
    pub decoder: DecoderConfig,
    /// Whether `fc` and `img_fc` have biases.
    pub fusion_bias: Bias,
}

impl DraftShape {
    /// Returns the names and shapes of all trained parameters, in the order of upstream's
    /// checkpoints.
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
        if let NetworkKind::Eagle3 { head_tokens, .. } = self.kind {
            linear("fc", hidden, self.feature_width(), Bias::No);
            if head_tokens > 0 {
                linear("lm_head", head_tokens, hidden, Bias::No);
            }
        } else {
            linear("fc", hidden, 2 * hidden, self.fusion_bias);
        }
        if self.n_queries() > 0 {
            linear("img_fc", hidden, 2 * hidden, self.fusion_bias);
            linear("imadpt.k_proj", width, hidden, qkv_bias);
            linear("imadpt.v_proj", width, hidden, qkv_bias);
            linear("imadpt.o_proj", hidden, width, Bias::No);
        }
        let (inputs, layers) = match self.kind {
            NetworkKind::Eagle3 { .. } => (2 * hidden, vec!["midlayer".to_owned()]),
            _ => (hidden, self.layers().collect()),
        };
        let kv_width = kv_heads * head_dim;
        for layer in &layers {
            let at = |name: &str| format!("{layer}.{name}");
            linear(&at("self_attn.q_proj"), width, inputs, qkv_bias);
            linear(&at("self_attn.k_proj"), kv_width, inputs, qkv_bias);
            linear(&at("self_attn.v_proj"), kv_width, inputs, qkv_bias);
            linear(&at("self_attn.o_proj"), hidden, width, Bias::No);
            linear(&at("mlp.gate_proj"), intermediate, hidden, Bias::No);
            linear(&at("mlp.up_proj"), intermediate, hidden, Bias::No);
            linear(&at("mlp.down_proj"), hidden, intermediate, Bias::No);
        }
        let mut norm = |name: String| list.push((format!("{name}.weight"), vec![hidden]));
        for (number, layer) in layers.iter().enumerate() {
            let is_eagle3 = matches!(self.kind, NetworkKind::Eagle3 { .. });
            if number > 0 || is_eagle3 {
                norm(format!("{layer}.input_layernorm"));
            }
            if is_eagle3 {
                norm(format!("{layer}.hidden_norm"));
            }
            norm(format!("{layer}.post_attention_layernorm"));
        }
        if let NetworkKind::Eagle3 { .. } = self.kind {
            norm("norm".to_owned());
        }
        if self.n_queries() > 0 {
            list.push(("imadpt.q".into(), vec![self.n_queries(), heads, head_dim]));
        }
        list
    }

    fn layers(&self) -> impl Iterator<Item = String> {
        (0..self.decoder.layers).map(|layer| format!("layers.{layer}"))
    }

    /// Returns the number of learned queries of the vision adaptor; 0 without one.
    pub(crate) fn n_queries(&self) -> usize {
        match self.kind {
            NetworkKind::Vispec { n_queries } | NetworkKind::Eagle3 { n_queries, .. } => n_queries,
            NetworkKind::Eagle2 | NetworkKind::Medusa { .. } => 0,
        }
    }

    /// Returns the number of tokens that the draft's own head scores; 0 without one.
    pub(crate) fn head_tokens(&self) -> usize {
        match self.kind {
            NetworkKind::Eagle3 { head_tokens, .. } => head_tokens,
            _ => 0,
        }
    }

    /// Returns the width of the target's features that the draft reads at each position.
    pub(crate) fn feature_width(&self) -> usize {
        match self.kind {
            NetworkKind::Eagle3 { states, .. } => states.len() * self.decoder.hidden,
            _ => self.decoder.hidden,
        }
    }

    /// Builds a network from `parameters` on `device`.
    ///
    /// # Panics
    /// If a parameter of [`DraftShape::parameters`] is missing.
    #[must_use]
    pub fn build(&self, parameters: &Parameters, device: &Device) -> Network {
        let source = Source { parameters, device };
        match self.kind {
            NetworkKind::Medusa { n_heads } => Network::Medusa(source.medusa(n_heads)),
            NetworkKind::Eagle3 { .. } => Network::Eagle3(source.eagle3(self)),
            NetworkKind::Vispec { .. } | NetworkKind::Eagle2 => Network::Draft(source.draft(self)),
        }
    }
}

/// Parameters that layers are built from, and the device to put them on.
pub(super) struct Source<'p> {
    pub(super) parameters: &'p Parameters,
    pub(super) device: &'p Device,
}

impl Source<'_> {
    pub(super) fn tensor<const D: usize>(&self, name: &str) -> Tensor<D> {
        match self.parameters.get(name) {
            Some(tensor) => tensor.to_device(self.device),
            None => panic!("parameter {name} is missing"),
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
            panic!("parameter {weight} is missing")
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

    pub(super) fn layer_norm(&self, name: &str, eps: f64) -> LayerNorm {
        let [weight, bias] = ["weight", "bias"].map(|part| self.tensor(&format!("{name}.{part}")));
        LayerNorm::new(weight, bias, eps)
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

    pub(super) fn layer(&self, name: &str, eps: f64) -> DecoderLayer {
        let at = |part: &str| format!("{name}.{part}");
        let has_input_norm = self.parameters.contains_key(&at("input_layernorm.weight"));
        DecoderLayer {
            input_layernorm: has_input_norm.then(|| self.norm(&at("input_layernorm"), eps)),
            self_attn: self.attention(name),
            post_attention_layernorm: self.norm(&at("post_attention_layernorm"), eps),
            mlp: self.mlp(name),
        }
    }

    fn attention(&self, layer: &str) -> Attention {
        let linear = |name: &str| self.linear(&format!("{layer}.self_attn.{name}"));
        Attention {
            q_proj: linear("q_proj"),
            k_proj: linear("k_proj"),
            v_proj: linear("v_proj"),
            o_proj: linear("o_proj"),
        }
    }

    fn mlp(&self, layer: &str) -> GatedMlp {
        let linear = |name: &str| self.linear(&format!("{layer}.mlp.{name}"));
        GatedMlp {
            gate_proj: linear("gate_proj"),
            up_proj: linear("up_proj"),
            down_proj: linear("down_proj"),
        }
    }

    fn adaptor(&self) -> VisionAdaptor {
        VisionAdaptor {
            q: Param::from_tensor(self.tensor("imadpt.q")),
            k_proj: self.linear("imadpt.k_proj"),
            v_proj: self.linear("imadpt.v_proj"),
            o_proj: self.linear("imadpt.o_proj"),
        }
    }

    fn draft(&self, shape: &DraftShape) -> DraftNetwork {
        let vision = shape.n_queries() > 0;
        DraftNetwork {
            fc: self.linear("fc"),
            layers: shape
                .layers()
                .map(|layer| self.layer(&layer, shape.decoder.rms_eps))
                .collect(),
            imadpt: vision.then(|| self.adaptor()),
            img_fc: vision.then(|| self.linear("img_fc")),
            config: shape.decoder,
        }
    }

    fn eagle3(&self, shape: &DraftShape) -> Eagle3Network {
        let vision = shape.n_queries() > 0;
        let norm = |name: &str| self.norm(name, shape.decoder.rms_eps);
        let has_head = self.parameters.contains_key("lm_head.weight");
        Eagle3Network {
            fc: self.linear("fc"),
            midlayer: Eagle3Layer {
                input_layernorm: norm("midlayer.input_layernorm"),
                hidden_norm: norm("midlayer.hidden_norm"),
                self_attn: self.attention("midlayer"),
                post_attention_layernorm: norm("midlayer.post_attention_layernorm"),
                mlp: self.mlp("midlayer"),
            },
            norm: norm("norm"),
            lm_head: has_head.then(|| self.linear("lm_head")),
            imadpt: vision.then(|| self.adaptor()),
            img_fc: vision.then(|| self.linear("img_fc")),
            config: shape.decoder,
        }
    }
}
