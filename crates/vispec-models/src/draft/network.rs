//! The draft network of ViSpec, EAGLE-2 and EAGLE-3. EAGLE-2 is the ViSpec network without vision.
//! The EAGLE-3 network differs in the inputs of its decoder and of its head, and may also have
//! vision.

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
    /// Takes `imadpt` and `img_fc` from `weights`; their biases are optional.
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
/// (paper section 3.3). `algorithm.md` explains the shift by one.
#[derive(Module, Debug)]
pub struct DraftNetwork {
    input: DraftInput,
    decoder: Decoder,
    vision: Option<VisionFusion>,
    /// Norm before the head, in EAGLE-3.
    norm: Option<RmsNorm>,
    #[module(skip)]
    config: DecoderConfig,
}

/// The rows that the draft's decoder reads for a prompt, with images compressed.
#[derive(Debug, Clone)]
pub struct DraftPrompt {
    /// Decoder inputs.
    pub rows: StackInput,
    /// Position of each row in the uncompressed prompt.
    pub positions: Vec<i64>,
    /// The global vector `[1, hidden]` of the last image.
    pub image: Option<Tensor<2>>,
}

/// The prompt input of a draft. Each row pairs a token with the hidden state of the token before
/// it: all prompt tokens but the first, and then the token that follows the prompt.
#[derive(Debug, Clone, Copy)]
pub struct DraftPromptInput<'a> {
    /// Embeddings of text tokens `[rows, hidden]`.
    pub embeds: &'a Tensor<2>,
    /// The target's input embeddings `[rows, target_hidden]`. A vision adaptor compresses the rows
    /// that are image features.
    pub pictures: &'a Tensor<2>,
    /// Hidden states `[rows, hidden]`, as returned by [`DraftNetwork::fuse_target`].
    pub hidden: &'a Tensor<2>,
    /// Rows that belong to each image, ascending.
    pub images: &'a [Range<usize>],
}

impl DraftNetwork {
    /// Takes all tensors of an EAGLE-3 draft except embedding and head from `weights`. The draft is
    /// vision-aware if the file contains learned queries.
    ///
    /// # Arguments
    /// * `n_states` - number of target states that the draft reads.
    /// * `n_queries` - number of learned queries in the file, if any.
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

    /// Takes all tensors except the embedding from `weights`. The draft is vision-aware if the file
    /// contains learned queries.
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

    /// Fuses the target's features `[rows, states * target_hidden]` into the hidden states
    /// `[rows, hidden]` that the draft uses.
    #[must_use]
    pub fn fuse_target(&self, features: Tensor<2>) -> Tensor<2> {
        self.input.fuse_target(features)
    }

    /// Returns whether [`fuse_target`](Self::fuse_target) returns its input unchanged.
    pub(super) fn reads_target_as_it_is(&self) -> bool {
        self.input.reads_target_as_it_is()
    }

    /// Turns outputs `[rows, hidden]` of the decoder into the input of the head.
    pub(crate) fn read_out(&self, output: Tensor<2>) -> Tensor<2> {
        match &self.norm {
            Some(norm) => norm.forward(output),
            None => output,
        }
    }

    /// Returns the number of learned queries of the vision adaptor, including the global query;
    /// `None` without vision.
    pub(crate) fn n_queries(&self) -> Option<usize> {
        let vision = self.vision.as_ref()?;
        Some(vision.imadpt.n_queries())
    }

    /// Returns the cost of reading a prompt, in text tokens. An image token that is compressed
    /// costs less than a text token: only its key and value in the adaptor are computed.
    ///
    /// # Arguments
    /// * `n_tokens` - length of the prompt.
    /// * `images` - number of tokens of each image.
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

    /// Returns the shapes of the decoder.
    pub(crate) fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Builds the decoder inputs of text: the embedding of the next token beside the hidden state
    /// of this token. The vector of the most recent image is added to the hidden state. A
    /// vision-aware draft adds zeros before the first image.
    ///
    /// # Arguments
    /// * `images` - for each sequence, in the order of the rows: its number of rows and its image
    ///   vector `[1, hidden]`.
    ///
    /// # Shapes
    /// `embeds`, `hidden` and the result `[rows, hidden]`.
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

    /// Builds the decoder inputs of a prompt. Without vision parts, images are read like text,
    /// uncompressed.
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

    /// Returns the decoder layer.
    pub(crate) fn decoder(&self) -> &Decoder {
        &self.decoder
    }
}

/// Returns the image vector of each row of `hidden`; zeros for rows without one.
fn image_rows(hidden: &Tensor<2>, images: &[(usize, Option<&Tensor<2>>)]) -> Tensor<2> {
    let [_, width] = hidden.dims();
    let like = (&hidden.device(), hidden.dtype());
    let rows = images.iter().map(|&(rows, image)| match image {
        Some(image) => image.clone().expand([rows, width]),
        None => Tensor::zeros([rows, width], like),
    });
    join_rows(rows.collect())
}

/// Returns the positions of the compressed tokens: the last positions of the image. If the image
/// has fewer positions than compressed tokens, the first compressed tokens share its first
/// position.
fn compressed_positions(image: &Range<usize>, n_tokens: usize) -> impl Iterator<Item = i64> {
    let Range { start, end } = image.clone();
    (0..n_tokens).map(move |i| position((end + i).saturating_sub(n_tokens).max(start)))
}

fn position(row: usize) -> i64 {
    i64::try_from(row).unwrap_or(i64::MAX)
}
