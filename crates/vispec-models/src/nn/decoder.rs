//! The decoder stack shared by the Llama and Qwen text models and by the drafts.

use burn::module::Module;
use burn::tensor::Tensor;

use super::attention::{Attention, DeviceSegment};
use super::linear::Bias;
use super::mlp::GatedMlp;
use super::norm::RmsNorm;
use super::rope::RotaryTable;
use super::stack::StackInput;
use crate::weights::Weights;

/// Shapes of a decoder stack.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DecoderConfig {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width inside the feed-forward block.
    pub intermediate: usize,
    /// Number of layers.
    pub layers: usize,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads.
    pub kv_heads: usize,
    /// Size of a head.
    pub head_dim: usize,
    /// Whether the query, key and value projections have biases.
    pub qkv_bias: Bias,
    /// Whether queries and keys are normalised before they are rotated.
    pub qk_norm: QkNorm,
    /// Epsilon added to the mean square in norms.
    pub rms_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
}

impl DecoderConfig {
    /// Returns the number of weights of the linear layers, which a pass over one row reads.
    pub(crate) fn n_weights(&self) -> usize {
        let attention = self.hidden * self.head_dim * 2 * (self.heads + self.kv_heads);
        self.layers * (attention + 3 * self.hidden * self.intermediate)
    }
}

/// Normalisation of queries and keys before the rotary embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// No normalisation.
    No,
    /// Each head is normalised separately, as in Qwen3.
    PerHead,
}

/// Input of the attention of the first layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FirstInput {
    /// The residual stream after a norm, as in every Llama layer.
    Normed,
    /// The residual stream without a norm, as in EAGLE-2 and ViSpec drafts.
    Residual,
    /// Rows of this width, passed in separately from the residual stream, as in EAGLE-3 drafts.
    Given(usize),
}

/// One pre-norm layer: attention, then the gated feed-forward block, each with a residual.
#[derive(Module, Debug)]
pub(crate) struct DecoderLayer {
    input_layernorm: Option<RmsNorm>,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: GatedMlp,
}

impl DecoderLayer {
    /// Takes the layer's tensors from `weights`.
    pub(crate) fn load(weights: &Weights<'_>, config: &DecoderConfig, first: FirstInput) -> Self {
        let norm = |name: &str| RmsNorm::load(&weights.at(name), config.hidden, config.rms_eps);
        let inputs = match first {
            FirstInput::Normed | FirstInput::Residual => config.hidden,
            FirstInput::Given(width) => width,
        };
        Self {
            input_layernorm: match first {
                FirstInput::Normed => Some(norm("input_layernorm")),
                FirstInput::Residual | FirstInput::Given(_) => None,
            },
            self_attn: Attention::load(&weights.at("self_attn"), (inputs, config.hidden), config),
            post_attention_layernorm: norm("post_attention_layernorm"),
            mlp: GatedMlp::load(
                &weights.at("mlp"),
                config.hidden,
                config.intermediate,
                Bias::No,
            ),
        }
    }

    /// Runs the layer as layer `idx` of a stack.
    ///
    /// # Shapes
    /// `x` and the result `[rows, hidden]`; `given` `[rows, inputs]`, if attention reads rows other
    /// than `x`.
    #[must_use]
    fn forward(
        &self,
        x: Tensor<2>,
        given: Option<Tensor<2>>,
        rotary: &RotaryTable,
        idx: usize,
        segments: &mut [DeviceSegment<'_>],
    ) -> Tensor<2> {
        let attended = match (&self.input_layernorm, given) {
            (Some(norm), _) => norm.forward(x.clone()),
            (None, Some(given)) => given,
            (None, None) => x.clone(),
        };
        let x = x + self.self_attn.forward(&attended, rotary, idx, segments);
        let normed = self.post_attention_layernorm.forward(x.clone());
        x + self.mlp.forward(normed)
    }
}

#[cfg(any(feature = "flex", feature = "cube"))]
impl DecoderLayer {
    pub(super) fn input_norm(&self) -> Option<&RmsNorm> {
        self.input_layernorm.as_ref()
    }

    pub(super) fn attention(&self) -> &Attention {
        &self.self_attn
    }

    pub(super) fn post_norm(&self) -> &RmsNorm {
        &self.post_attention_layernorm
    }

    pub(super) fn mlp(&self) -> &GatedMlp {
        &self.mlp
    }
}

/// Output of a stack and recorded states of its residual stream.
#[derive(Debug)]
pub(crate) struct ResidualStream {
    /// Output of the last layer, `[rows, hidden]`.
    pub(crate) last: Tensor<2>,
    /// Inputs of the requested layers with their numbers, each `[rows, hidden]`.
    pub(crate) noted: Vec<(usize, Tensor<2>)>,
}

/// A stack of layers without embedding and final norm.
#[derive(Module, Debug)]
pub(crate) struct Decoder {
    layers: Vec<DecoderLayer>,
}

impl Decoder {
    /// Takes `layers.0`, `layers.1` … from `weights`; `first` is the input of layer 0.
    pub(crate) fn load(weights: &Weights<'_>, config: &DecoderConfig, first: FirstInput) -> Self {
        let layers = (0..config.layers)
            .map(|idx| {
                let input = if idx == 0 { first } else { FirstInput::Normed };
                DecoderLayer::load(&weights.at(format!("layers.{idx}")), config, input)
            })
            .collect();
        Self { layers }
    }

    /// Runs all layers through Burn's operations, appends the rows to the caches and records the
    /// `wanted` states.
    ///
    /// The input contains the rows of the segments in order.
    pub(super) fn forward(
        &self,
        input: StackInput,
        rotary: &RotaryTable,
        segments: &mut [DeviceSegment<'_>],
        wanted: &[usize],
    ) -> ResidualStream {
        let (mut x, mut given, later) = (input.residual, input.given, input.later);
        let mut noted = Vec::with_capacity(wanted.len());
        for (idx, layer) in self.layers.iter().enumerate() {
            if wanted.contains(&idx) {
                noted.push((idx, x.clone()));
            }
            x = layer.forward(x, given.take(), rotary, idx, segments);
            x = later.added(idx, x);
        }
        ResidualStream { last: x, noted }
    }

    /// Returns the number of weights of the linear layers, which a pass over one row reads.
    pub(crate) fn n_weights(&self, config: &DecoderConfig) -> usize {
        let DecoderConfig {
            hidden,
            heads,
            kv_heads,
            head_dim,
            ..
        } = *config;
        let first = self.layers.first();
        let inputs = first.map_or(hidden, |layer| layer.self_attn.n_inputs());
        let more = inputs.saturating_sub(hidden) * head_dim * (heads + 2 * kv_heads);
        config.n_weights() + more
    }

    #[cfg(feature = "flex")]
    pub(super) fn layers(&self) -> &[DecoderLayer] {
        &self.layers
    }

    #[cfg(feature = "cube")]
    pub(super) fn into_layers(self) -> Vec<DecoderLayer> {
        self.layers
    }

    /// Returns one of the weights, all of which are on the same device; `None` without layers.
    #[cfg(feature = "cube")]
    pub(super) fn any_weight(&self) -> Option<Tensor<1>> {
        let layer = self.layers.first()?;
        Some(layer.post_attention_layernorm.weight())
    }
}
