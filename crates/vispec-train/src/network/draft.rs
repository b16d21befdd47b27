//! The trainable network of ViSpec and EAGLE-2.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Tensor, activation};
use vispec_models::nn::DecoderConfig;

use super::adaptor::VisionAdaptor;
use super::attention::{Attention, Rotary};
use super::cpu;
use super::images::CompressedImages;
use super::layers::{Linear, RmsNorm};
use super::rows::{DraftRows, indices};

/// The gated feed-forward block.
#[derive(Module, Debug)]
pub(crate) struct GatedMlp {
    /// Projection to the gate.
    pub(super) gate_proj: Linear,
    /// Projection to the inner width.
    pub(super) up_proj: Linear,
    /// Projection back to the outer width.
    pub(super) down_proj: Linear,
}

impl GatedMlp {
    /// # Shapes
    /// `x` and the result `[rows, hidden]`.
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let gate = self.gate_proj.forward(x.clone());
        let up = self.up_proj.forward(x);
        let product = match cpu::silu_mul(&gate, &up) {
            Some(product) => product,
            None => activation::silu(gate) * up,
        };
        self.down_proj.forward(product)
    }
}

/// One pre-norm layer. The first layer of a draft has no norm before attention.
#[derive(Module, Debug)]
pub(crate) struct DecoderLayer {
    pub(super) input_layernorm: Option<RmsNorm>,
    pub(super) self_attn: Attention,
    pub(super) post_attention_layernorm: RmsNorm,
    pub(super) mlp: GatedMlp,
}

impl DecoderLayer {
    pub(super) fn forward(
        &self,
        x: Tensor<2>,
        rotary: &Rotary,
        samples: &[Range<usize>],
        config: &DecoderConfig,
    ) -> Tensor<2> {
        let input = match &self.input_layernorm {
            Some(norm) => norm.forward(x.clone()),
            None => x.clone(),
        };
        let x = x + self.self_attn.forward(&input, rotary, samples, config);
        let normed = self.post_attention_layernorm.forward(x.clone());
        x + self.mlp.forward(normed)
    }
}

/// Fuses embeddings with hidden states and runs decoder layers over them. The field names are those
/// of upstream's checkpoints.
#[derive(Module, Debug)]
pub struct DraftNetwork {
    /// `[embedding ; hidden] -> hidden`
    pub(super) fc: Linear,
    pub(super) layers: Vec<DecoderLayer>,
    pub(super) imadpt: Option<VisionAdaptor>,
    /// `[hidden ; image] -> hidden`
    pub(super) img_fc: Option<Linear>,
    #[module(skip)]
    pub(super) config: DecoderConfig,
}

/// Inputs of the network for one batch, without a graph.
#[derive(Debug, Clone)]
pub struct DraftInputs {
    /// `[tokens, hidden]`: the embedding of the token after each position.
    pub embeds: Tensor<2>,
    /// `[tokens, features]`: the target's last hidden state at each position or, for EAGLE-3,
    /// several of its states.
    pub features: Tensor<2>,
    /// Layout of the rows.
    pub rows: DraftRows,
}

impl DraftNetwork {
    /// Returns the number of learned queries; 0 for EAGLE-2.
    #[must_use]
    pub fn n_queries(&self) -> usize {
        self.imadpt.as_ref().map_or(0, VisionAdaptor::n_queries)
    }

    /// Reads a batch `1 + n_unrolled` times. Instead of the target's hidden states, each further
    /// pass reads the output of the pass before it, shifted by one position (paper section 3.4).
    /// Gradients flow through all passes.
    ///
    /// # Shapes
    /// Results `[rows, hidden]`, one row for each of `inputs.rows`.
    #[must_use]
    pub fn unroll(&self, inputs: &DraftInputs, n_unrolled: usize) -> Vec<Tensor<2>> {
        let rows = &inputs.rows;
        let device = inputs.embeds.device();
        let text = indices(&rows.text, &device);
        let embeds = inputs.embeds.clone().select(0, text.clone());
        let hidden = inputs.features.clone().select(0, text);
        let images = CompressedImages::of(self.imadpt.as_ref(), &inputs.embeds, rows);
        let rotary = Rotary::new(&rows.positions, &self.config, &device);

        let mut outputs: Vec<Tensor<2>> = Vec::with_capacity(1 + n_unrolled);
        let mut fed = hidden.clone();
        for pass in 0..=n_unrolled {
            if pass > 0 {
                // A row without a preceding output reads the first hidden state of its sample. A
                // row after an image that left no row reads zeros.
                let first = hidden.clone().select(0, indices(&rows.first_text, &device));
                let zero = Tensor::zeros([1, self.config.hidden], &device);
                let sources = Tensor::cat(vec![outputs[pass - 1].clone(), first, zero], 0);
                fed = sources.select(0, indices(&rows.fed_back, &device));
            }
            let hidden = images.add_globals(self.img_fc.as_ref(), fed.clone(), &rows.text_image);
            let fused = self
                .fc
                .forward(Tensor::cat(vec![embeds.clone(), hidden], 1));
            let mut x = images.arrange(fused, rows);
            for layer in &self.layers {
                x = layer.forward(x, &rotary, &rows.samples, &self.config);
            }
            outputs.push(x);
        }
        outputs
    }
}
