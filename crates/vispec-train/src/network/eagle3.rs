//! The trainable network of EAGLE-3, with or without ViSpec's vision adaptor in front.

use burn::module::Module;
use burn::tensor::Tensor;
use vispec_kernels::CausalSample;
use vispec_models::nn::DecoderConfig;

use super::adaptor::VisionAdaptor;
use super::attention::{Attention, Projected, Rotary};
use super::draft::{DraftInputs, GatedMlp};
use super::drafted::DraftedRows;
use super::images::CompressedImages;
use super::layers::{Linear, RmsNorm};
use super::rows::indices;

/// The decoder layer. Attention reads the normalised embedding of the next token, concatenated with
/// the normalised hidden state of the current one.
#[derive(Module, Debug)]
pub(crate) struct Eagle3Layer {
    /// Norm of the embedding.
    pub(super) input_layernorm: RmsNorm,
    /// Norm of the hidden state.
    pub(super) hidden_norm: RmsNorm,
    pub(super) self_attn: Attention,
    pub(super) post_attention_layernorm: RmsNorm,
    pub(super) mlp: GatedMlp,
}

/// Fuses several states of the target and runs one layer over them. The field names are those of
/// published checkpoints.
#[derive(Module, Debug)]
pub struct Eagle3Network {
    /// Fuses the target's states into one hidden state.
    pub(super) fc: Linear,
    pub(super) midlayer: Eagle3Layer,
    /// Norm before the head.
    pub(super) norm: RmsNorm,
    /// The draft's own head over its vocabulary; `None` to use the target's.
    pub(super) lm_head: Option<Linear>,
    pub(super) imadpt: Option<VisionAdaptor>,
    /// `[hidden ; image] -> hidden`
    pub(super) img_fc: Option<Linear>,
    #[module(skip)]
    pub(super) config: DecoderConfig,
}

impl Eagle3Network {
    /// Returns the number of learned queries; 0 if images are read like text.
    #[must_use]
    pub fn n_queries(&self) -> usize {
        self.imadpt.as_ref().map_or(0, VisionAdaptor::n_queries)
    }

    /// Returns the draft's own head, if it has one.
    pub(crate) fn head(&self) -> Option<&Linear> {
        self.lm_head.as_ref()
    }

    /// Reads a batch once, then continues separately from each row of an answer, as in drafting
    /// (training-time test of EAGLE-3). Pass `k` reads the output of the pass before it as hidden
    /// state, and the token `k` places further. Each row attends to the rows of the first pass up
    /// to itself, and to its own keys and values of the later passes. Gradients flow through all
    /// passes.
    ///
    /// Returns the inputs of the head for the supervised rows of each pass, `[supervised, hidden]`.
    #[must_use]
    pub fn passes(&self, inputs: &DraftInputs, drafted: &DraftedRows) -> Vec<Tensor<2>> {
        let rows = &inputs.rows;
        let device = inputs.embeds.device();
        let text = indices(&rows.text, &device);
        let images = CompressedImages::of(self.imadpt.as_ref(), &inputs.embeds, rows);
        // A compressed image token serves as both embedding and hidden state.
        let embeds = images.arrange(inputs.embeds.clone().select(0, text.clone()), rows);
        let fused = self.fc.forward(inputs.features.clone().select(0, text));
        let fused = images.add_globals(self.img_fc.as_ref(), fused, &rows.text_image);
        let hidden = images.arrange(fused, rows);

        let rotary = Rotary::new(&rows.positions, &self.config, &device);
        let first = self.midlayer.project(&embeds, &hidden, &rotary);
        let samples: Vec<CausalSample> = rows
            .samples
            .iter()
            .map(|rows| CausalSample::of_itself(rows.clone()))
            .collect();
        let mut output =
            self.midlayer
                .forward(hidden, (&first, &[], &first), &samples, &self.config);
        let mut read = vec![self.read_out(&output, &drafted.passes[0].supervised)];
        output = output.select(0, indices(&drafted.rows, &device));

        let mut own: Vec<Projected> = Vec::new();
        for (ahead, pass) in drafted.passes.iter().enumerate().skip(1) {
            if drafted.rows.is_empty() {
                read.push(Tensor::zeros([0, self.config.hidden], &device));
                continue;
            }
            let embeds = embeds.clone().select(0, indices(&pass.embeds, &device));
            let hidden = images.add_globals(self.img_fc.as_ref(), output, &drafted.images);
            let positions: Vec<usize> = drafted.positions.iter().map(|at| at + ahead).collect();
            let rotary = Rotary::new(&positions, &self.config, &device);
            own.push(self.midlayer.project(&embeds, &hidden, &rotary));
            let queries = &own[own.len() - 1];
            let seen = (queries, own.as_slice(), &first);
            output = self
                .midlayer
                .forward(hidden, seen, &drafted.samples, &self.config);
            read.push(self.read_out(&output, &pass.supervised));
        }
        read
    }

    /// Returns the input of the head for some rows.
    fn read_out(&self, output: &Tensor<2>, rows: &[usize]) -> Tensor<2> {
        let rows = indices(rows, &output.device());
        self.norm.forward(output.clone().select(0, rows))
    }
}

impl Eagle3Layer {
    /// # Shapes
    /// `embeds` and `hidden` `[rows, hidden]`.
    fn project(&self, embeds: &Tensor<2>, hidden: &Tensor<2>, rotary: &Rotary) -> Projected {
        let embeds = self.input_layernorm.forward(embeds.clone());
        let hidden = self.hidden_norm.forward(hidden.clone());
        self.self_attn
            .project(&Tensor::cat(vec![embeds, hidden], 1), rotary)
    }

    /// Returns the output for each query, before the final norm.
    ///
    /// # Arguments
    /// * `hidden` - residual input of the queries, `[queries, hidden]`.
    /// * `(queries, own, rows)` - the queries, the queries' own keys and values of the passes after
    ///   the first, and those of the first pass.
    fn forward(
        &self,
        hidden: Tensor<2>,
        (queries, own, rows): (&Projected, &[Projected], &Projected),
        samples: &[CausalSample],
        config: &DecoderConfig,
    ) -> Tensor<2> {
        let attended = self
            .self_attn
            .attend(&queries.queries, rows, own, samples, config);
        let x = hidden + attended;
        let normed = self.post_attention_layernorm.forward(x.clone());
        x + self.mlp.forward(normed)
    }
}
