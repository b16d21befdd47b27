//! The trainable language model of a target. Its parameters do not include the embedding.

use burn::module::Module;
use burn::tensor::{Device, Tensor, activation};
use vispec_models::nn::{Bias, DecoderConfig};

use super::attention::Rotary;
use super::build::Source;
use super::draft::DecoderLayer;
use super::layers::{Linear, RmsNorm};
use super::parameters::Parameters;
use super::rows::indices;

/// Everything that determines the parameters of a target's language model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TargetShape {
    /// The decoder.
    pub decoder: DecoderConfig,
    /// Number of rows of the output head.
    pub vocab_size: usize,
    /// Numbers of rotary frequencies for time, height and width.
    pub rotary_sections: [usize; 3],
}

/// Inputs of the network for one sequence, without a graph.
#[derive(Debug, Clone)]
pub struct TargetInputs<'a> {
    /// `[seq, hidden]`: embeddings, with image features at the positions of image tokens.
    pub embeds: Tensor<2>,
    /// Rotary positions on the axes time, height and width, each `[seq]`.
    pub axes: [&'a [u32]; 3],
    /// Rows whose next token is predicted.
    pub rows: &'a [usize],
}

impl TargetShape {
    /// Returns the names and shapes of all trained parameters. In checkpoints, all names but the
    /// head's have the prefix `model.`.
    pub(crate) fn parameters(&self) -> Vec<(String, Vec<usize>)> {
        let DecoderConfig {
            hidden,
            intermediate,
            ..
        } = self.decoder;
        let queries = self.decoder.heads * self.decoder.head_dim;
        let keys = self.decoder.kv_heads * self.decoder.head_dim;
        let mut list = vec![
            ("lm_head.weight".to_owned(), vec![self.vocab_size, hidden]),
            ("norm.weight".to_owned(), vec![hidden]),
        ];
        for layer in 0..self.decoder.layers {
            let mut add = |name: &str, shape: Vec<usize>| {
                list.push((format!("layers.{layer}.{name}"), shape));
            };
            for (name, outputs) in [("q_proj", queries), ("k_proj", keys), ("v_proj", keys)] {
                add(&format!("self_attn.{name}.weight"), vec![outputs, hidden]);
                if self.decoder.qkv_bias == Bias::Yes {
                    add(&format!("self_attn.{name}.bias"), vec![outputs]);
                }
            }
            add("self_attn.o_proj.weight", vec![hidden, queries]);
            add("mlp.gate_proj.weight", vec![intermediate, hidden]);
            add("mlp.up_proj.weight", vec![intermediate, hidden]);
            add("mlp.down_proj.weight", vec![hidden, intermediate]);
            add("input_layernorm.weight", vec![hidden]);
            add("post_attention_layernorm.weight", vec![hidden]);
        }
        list
    }

    /// Builds a network from `parameters` on `device`.
    ///
    /// # Panics
    /// If a parameter of the network is missing.
    #[must_use]
    pub fn build(&self, parameters: &Parameters, device: &Device) -> TargetNetwork {
        let source = Source { parameters, device };
        let eps = self.decoder.rms_eps;
        TargetNetwork {
            layers: (0..self.decoder.layers)
                .map(|layer| source.layer(&format!("layers.{layer}"), eps))
                .collect(),
            norm: source.norm("norm", eps),
            lm_head: source.linear("lm_head"),
            shape: *self,
        }
    }
}

/// Decoder, final norm and output head.
#[derive(Module, Debug)]
pub struct TargetNetwork {
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    lm_head: Linear,
    #[module(skip)]
    shape: TargetShape,
}

impl TargetNetwork {
    /// Returns the log-probabilities of the tokens that follow `inputs.rows`, `[rows, vocab]`.
    #[must_use]
    pub fn log_probabilities(&self, inputs: &TargetInputs<'_>) -> Tensor<2> {
        let device = inputs.embeds.device();
        let decoder = &self.shape.decoder;
        let [seq, _] = inputs.embeds.dims();
        let sections = self.shape.rotary_sections;
        let rotary = Rotary::multimodal(inputs.axes, sections, decoder, &device);
        let mut x = inputs.embeds.clone();
        for layer in &self.layers {
            x = layer.forward(x, &rotary, std::slice::from_ref(&(0..seq)), decoder);
        }
        let hidden = self
            .norm
            .forward(x.select(0, indices(inputs.rows, &device)));
        activation::log_softmax(self.lm_head.forward(hidden), 1)
    }
}
