//! The draft network of ViSpec, and of EAGLE-2, which is the same without vision. That of EAGLE-3
//! differs in what enters its decoder and what its head reads, and may have vision, too.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Tensor, s};

use super::config::DraftConfig;
use super::eagle3::Eagle3Config;
use super::input::{DraftInput, join_inputs};
use super::vision_adaptor::VisionAdaptor;
use crate::nn::{Bias, Decoder, DecoderConfig, Linear, RmsNorm, StackInput, join_rows};
use crate::weights::Weights;

/// The parts that make a draft vision-aware.
#[derive(Module, Debug)]
pub(crate) struct VisionFusion {
    imadpt: VisionAdaptor,
    /// Adds the global image vector to a hidden state: `[hidden ; image] -> hidden`.
    img_fc: Linear,
}

impl VisionFusion {
    /// Takes `imadpt` and `img_fc` from `weights`, whose biases may be there or not.
    fn load(
        weights: &Weights<'_>,
        n_queries: usize,
        decoder: &DecoderConfig,
        [adaptor_bias, fusion_bias]: [Bias; 2],
    ) -> Self {
        let hidden = decoder.hidden;
        Self {
            imadpt: VisionAdaptor::load(
                &weights.at("imadpt"),
                n_queries,
                (decoder.heads, decoder.head_dim),
                hidden,
                adaptor_bias,
            ),
            img_fc: Linear::load(&weights.at("img_fc"), 2 * hidden, hidden, fusion_bias),
        }
    }
}

/// Fuses token embeddings with the target's hidden states and runs one decoder layer over them
/// (paper section 3.3; `algorithm.md` explains the shift by one).
#[derive(Module, Debug)]
pub struct DraftNetwork {
    input: DraftInput,
    decoder: Decoder,
    vision: Option<VisionFusion>,
    /// Before the head, in EAGLE-3.
    norm: Option<RmsNorm>,
    #[module(skip)]
    config: DecoderConfig,
}

/// The rows that the draft's decoder reads for a prompt, images compressed.
#[derive(Debug, Clone)]
pub struct DraftPrompt {
    /// Decoder inputs.
    pub rows: StackInput,
    /// Position of each row in the uncompressed prompt.
    pub positions: Vec<i64>,
    /// The global vector `[1, hidden]` of the last image.
    pub image: Option<Tensor<2>>,
}

/// A prompt as a draft is given it: for each token but the first, and for the one that follows the
/// prompt, the hidden state of the token before it.
#[derive(Debug, Clone, Copy)]
pub struct DraftPromptInput<'a> {
    /// Embeddings of text tokens `[rows, hidden]`.
    pub embeds: &'a Tensor<2>,
    /// The target's input embeddings `[rows, target_hidden]`, which a vision adaptor compresses where
    /// they are image features.
    pub pictures: &'a Tensor<2>,
    /// Hidden states `[rows, hidden]`, as [`DraftNetwork::fuse_target`] gives them.
    pub hidden: &'a Tensor<2>,
    /// Rows that belong to each image, ascending.
    pub images: &'a [Range<usize>],
}

impl DraftNetwork {
    /// Takes all tensors of an EAGLE-3 draft but embedding and head from `weights`; it is
    /// vision-aware if there are learned queries in the file.
    ///
    /// # Arguments
    /// * `n_states` - states of the target that the draft reads.
    #[must_use]
    pub(crate) fn load_eagle3(
        weights: &Weights<'_>,
        config: &Eagle3Config,
        n_states: usize,
        n_queries: Option<usize>,
    ) -> Self {
        let decoder = config.decoder;
        let input = DraftInput::paired(weights, config, n_states);
        let bias = |name: &str| match weights.contains(name) {
            true => Bias::Yes,
            false => Bias::No,
        };
        let biases = [bias("imadpt.k_proj.bias"), bias("img_fc.bias")];
        Self {
            decoder: Decoder::load(weights, &decoder, input.first(decoder.hidden)),
            input,
            vision: n_queries.map(|n| VisionFusion::load(weights, n, &decoder, biases)),
            norm: Some(RmsNorm::load(
                &weights.at("norm"),
                decoder.hidden,
                decoder.rms_eps,
            )),
            config: decoder,
        }
    }

    /// Takes all tensors but the embedding from `weights`. The draft is vision-aware if there are
    /// learned queries in the file.
    #[must_use]
    pub(crate) fn load(
        weights: &Weights<'_>,
        config: &DraftConfig,
        n_queries: Option<usize>,
    ) -> Self {
        let decoder = config.decoder();
        let bias = config.fusion_bias();
        let input = DraftInput::joined(weights, decoder.hidden, bias);
        let biases = [decoder.qkv_bias, bias];
        Self {
            decoder: Decoder::load(weights, &decoder, input.first(decoder.hidden)),
            input,
            vision: n_queries.map(|n| VisionFusion::load(weights, n, &decoder, biases)),
            norm: None,
            config: decoder,
        }
    }

    /// Hidden states `[rows, hidden]` to go on with, out of the target's features `[rows, states *
    /// target_hidden]`.
    #[must_use]
    pub fn fuse_target(&self, features: Tensor<2>) -> Tensor<2> {
        self.input.fuse_target(features)
    }

    /// Whether [`fuse_target`](Self::fuse_target) gives what it is given.
    pub(super) fn reads_target_as_it_is(&self) -> bool {
        self.input.reads_target_as_it_is()
    }

    /// What the head reads of outputs `[rows, hidden]`.
    #[must_use]
    pub(crate) fn read_out(&self, output: Tensor<2>) -> Tensor<2> {
        match &self.norm {
            Some(norm) => norm.forward(output),
            None => output,
        }
    }

    /// Learned queries of the vision adaptor, the global one included; `None` without vision.
    #[must_use]
    pub(crate) fn n_queries(&self) -> Option<usize> {
        let vision = self.vision.as_ref()?;
        Some(vision.imadpt.n_queries())
    }

    /// What reading a prompt of `n_tokens` with `images` of so many tokens costs, in tokens of text:
    /// of a compressed image token only a key and a value of the adaptor are computed.
    #[must_use]
    pub(crate) fn tokens_to_read(
        &self,
        n_tokens: usize,
        images: impl ExactSizeIterator<Item = usize>,
    ) -> usize {
        let Some(n_queries) = self.n_queries() else {
            return n_tokens;
        };
        let DecoderConfig {
            hidden,
            heads,
            head_dim,
            ..
        } = self.config;
        let of_image_token = 2 * hidden * heads * head_dim;
        let of_text_token = self.input.n_weights() + self.decoder.n_weights(&self.config);
        let n_images = images.len();
        let image_tokens: usize = images.sum();
        n_tokens.saturating_sub(image_tokens)
            + n_images * (n_queries - 1)
            + (image_tokens * of_image_token).div_ceil(of_text_token.max(1))
    }

    /// Shapes of the decoder.
    #[must_use]
    pub(crate) fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Decoder inputs of text: the embedding of the next token beside the hidden state of this one,
    /// to which the image vector in force is added. A vision-aware draft without an image yet adds
    /// a vector of zeros.
    ///
    /// # Arguments
    /// * `images` - for each sequence that the rows are of, one after the other: how many rows, and
    ///   its image vector `[1, hidden]`.
    ///
    /// # Shapes
    /// `embeds`, `hidden` and the result `[rows, hidden]`.
    #[must_use]
    pub(crate) fn fuse(
        &self,
        embeds: Tensor<2>,
        hidden: Tensor<2>,
        images: &[(usize, Option<&Tensor<2>>)],
    ) -> StackInput {
        let hidden = match &self.vision {
            None => hidden,
            Some(vision) => {
                let images = image_rows(&hidden, images);
                vision.img_fc.forward(Tensor::cat(vec![hidden, images], 1))
            }
        };
        self.input.text(embeds, hidden)
    }

    /// Decoder inputs of a prompt. Without vision parts images are read like text, uncompressed.
    #[must_use]
    pub fn read_prompt(&self, input: DraftPromptInput<'_>) -> DraftPrompt {
        let DraftPromptInput {
            embeds,
            pictures,
            hidden,
            images,
        } = input;
        let [n_rows, _] = embeds.dims();
        let mut positions = Vec::with_capacity(n_rows);
        let mut in_force: Option<Tensor<2>> = None;
        let mut rows = Vec::new();
        let mut done = 0;
        let images = if self.vision.is_some() { images } else { &[] };
        let end_of_text = n_rows..n_rows;
        for image in images.iter().chain(std::iter::once(&end_of_text)) {
            if done < image.start {
                let text = s![done..image.start, ..];
                rows.push(self.fuse(
                    embeds.clone().slice(text),
                    hidden.clone().slice(text),
                    &[(image.start - done, in_force.as_ref())],
                ));
                positions.extend((done..image.start).map(position));
            }
            if let (Some(vision), false) = (&self.vision, image.is_empty()) {
                let pictures = pictures.clone().slice(s![image.clone(), ..]);
                let compressed = vision.imadpt.forward(pictures);
                if let Some(tokens) = compressed.tokens {
                    positions.extend(compressed_positions(image, tokens.dims()[0]));
                    rows.push(self.input.image(tokens));
                }
                in_force = Some(compressed.global);
            }
            done = image.end;
        }
        DraftPrompt {
            rows: join_inputs(rows),
            positions,
            image: in_force,
        }
    }

    /// The decoder layer.
    #[must_use]
    pub(crate) fn decoder(&self) -> &Decoder {
        &self.decoder
    }
}

/// The image vector of each row of `hidden`, zeros where there is none.
fn image_rows(hidden: &Tensor<2>, images: &[(usize, Option<&Tensor<2>>)]) -> Tensor<2> {
    let [_, width] = hidden.dims();
    let like = (&hidden.device(), hidden.dtype());
    let rows = images.iter().map(|&(rows, image)| match image {
        Some(image) => image.clone().expand([rows, width]),
        None => Tensor::zeros([rows, width], like),
    });
    join_rows(rows.collect())
}

/// The last places of the image; if it has fewer than there are compressed tokens, the first
/// compressed tokens share its first place.
fn compressed_positions(image: &Range<usize>, n_tokens: usize) -> impl Iterator<Item = i64> {
    let Range { start, end } = image.clone();
    (0..n_tokens).map(move |i| position((end + i).saturating_sub(n_tokens).max(start)))
}

fn position(row: usize) -> i64 {
    i64::try_from(row).unwrap_or(i64::MAX)
}
