//! The language model of a target in training. The embedding is not among its parameters.

use burn::module::Module;
use burn::tensor::{Device, Tensor, activation};
use vispec_models::nn::{Bias, DecoderConfig};

use super::attention::Rotary;
use super::build::Source;
use super::draft::DecoderLayer;
use super::layers::{Linear, RmsNorm};
use super::parameters::Parameters;
use super::rows::indices;

/// Everything that decides which parameters the language model of a target has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TargetShape {
    /// The decoder.
    pub decoder: DecoderConfig,
    /// Rows of the output head.
    pub vocab_size: usize,
    /// Frequencies that turn with time, height and width.
    pub rotary_sections: [usize; 3],
}

/// What one sequence gives the network to read, without a graph.
#[derive(Debug, Clone)]
pub struct TargetInputs<'a> {
    /// `[seq, hidden]`: embeddings, with the features of images at their places.
    pub embeds: Tensor<2>,
    /// Rotary positions on the axes time, height and width, each `[seq]`.
    pub axes: [&'a [u32]; 3],
    /// Rows whose next token is predicted.
    pub rows: &'a [usize],
}

impl TargetShape {
    /// Names, below `model.` but for the head's, and shapes of all trained parameters.
    #[must_use]
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

    /// A network made of `parameters` on `device`.
    ///
    /// # Panics
    /// If a parameter of the network is not there.
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
    /// Log-probabilities of the tokens behind `inputs.rows`, `[rows, vocab]`.
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
