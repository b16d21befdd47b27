//! The draft network of ViSpec, and of EAGLE-2, which is the same without vision.

use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Tensor, s};

use super::config::DraftConfig;
use super::vision_adaptor::VisionAdaptor;
use crate::nn::{Decoder, DecoderConfig, InputNorm, Linear, join_rows};
use crate::weights::Weights;

/// The parts that make a draft vision-aware.
#[derive(Module, Debug)]
pub struct VisionFusion {
    imadpt: VisionAdaptor,
    /// Adds the global image vector to a hidden state: `[hidden ; image] -> hidden`.
    img_fc: Linear,
}

/// Fuses token embeddings with the target's hidden states and runs one decoder layer over them
/// (paper section 3.3; `algorithm.md` explains the shift by one).
#[derive(Module, Debug)]
pub struct DraftNetwork {
    /// `[embedding ; hidden] -> hidden`
    fc: Linear,
    decoder: Decoder,
    vision: Option<VisionFusion>,
    #[module(skip)]
    config: DecoderConfig,
}

/// The rows that the draft's decoder reads for a prompt, images compressed.
#[derive(Debug, Clone)]
pub struct DraftPrompt {
    /// Decoder inputs `[rows, hidden]`.
    pub rows: Tensor<2>,
    /// Position of each row in the uncompressed prompt.
    pub positions: Vec<i64>,
    /// The global vector `[1, hidden]` of the last image.
    pub image: Option<Tensor<2>>,
}

impl DraftNetwork {
    /// Takes all tensors but the embedding from `weights`. The draft is vision-aware if there are
    /// learned queries in the file.
    #[must_use]
    pub fn load(weights: &Weights<'_>, config: &DraftConfig, n_queries: Option<usize>) -> Self {
        let decoder = config.decoder();
        let hidden = decoder.hidden;
        let bias = config.fusion_bias();
        let vision = n_queries.map(|n_queries| VisionFusion {
            imadpt: VisionAdaptor::load(
                &weights.at("imadpt"),
                n_queries,
                (decoder.heads, decoder.head_dim),
                hidden,
                decoder.qkv_bias,
            ),
            img_fc: Linear::load(&weights.at("img_fc"), 2 * hidden, hidden, bias),
        });
        Self {
            fc: Linear::load(&weights.at("fc"), 2 * hidden, hidden, bias),
            decoder: Decoder::load(weights, &decoder, InputNorm::No),
            vision,
            config: decoder,
        }
    }

    /// Learned queries of the vision adaptor, the global one included; `None` without vision.
    #[must_use]
    pub fn n_queries(&self) -> Option<usize> {
        let vision = self.vision.as_ref()?;
        Some(vision.imadpt.n_queries())
    }

    /// What reading a prompt of `n_tokens` with `images` of so many tokens costs, in tokens of text:
    /// of a compressed image token only a key and a value of the adaptor are computed.
    #[must_use]
    pub fn tokens_to_read(
        &self,
        n_tokens: usize,
        images: impl ExactSizeIterator<Item = usize>,
    ) -> usize {
        let Some(n_queries) = self.n_queries() else {
            return n_tokens;
        };
        let DecoderConfig {
            hidden,
            intermediate,
            heads,
            head_dim,
            layers,
            ..
        } = self.config;
        let width = heads * head_dim;
        let of_image_token = 2 * hidden * width;
        let of_text_token = 2 * hidden * hidden + layers * hidden * (4 * width + 3 * intermediate);
        let n_images = images.len();
        let image_tokens: usize = images.sum();
        n_tokens.saturating_sub(image_tokens)
            + n_images * (n_queries - 1)
            + (image_tokens * of_image_token).div_ceil(of_text_token.max(1))
    }

    /// Shapes of the decoder.
    #[must_use]
    pub fn config(&self) -> &DecoderConfig {
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
    pub fn fuse(
        &self,
        embeds: Tensor<2>,
        hidden: Tensor<2>,
        images: &[(usize, Option<&Tensor<2>>)],
    ) -> Tensor<2> {
        let hidden = match &self.vision {
            None => hidden,
            Some(vision) => {
                let images = image_rows(&hidden, images);
                vision.img_fc.forward(Tensor::cat(vec![hidden, images], 1))
            }
        };
        self.fc.forward(Tensor::cat(vec![embeds, hidden], 1))
    }

    /// Decoder inputs of a prompt. Without vision parts images are read like text, uncompressed.
    ///
    /// # Arguments
    /// * `embeds` - `[rows, hidden]`, the input embeddings of positions 1, 2 … and of the token
    ///   that follows the prompt.
    /// * `hidden` - `[rows, hidden]`, the target's hidden states of positions 0, 1 …
    /// * `images` - rows of `embeds` that belong to each image, ascending.
    #[must_use]
    pub fn read_prompt(
        &self,
        embeds: &Tensor<2>,
        hidden: &Tensor<2>,
        images: &[Range<usize>],
    ) -> DraftPrompt {
        let [n_rows, _] = embeds.dims();
        let mut prompt = DraftPrompt {
            rows: embeds.clone().slice(s![0..0, ..]),
            positions: Vec::with_capacity(n_rows),
            image: None,
        };
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
                    &[(image.start - done, prompt.image.as_ref())],
                ));
                prompt.positions.extend((done..image.start).map(position));
            }
            if let (Some(vision), false) = (&self.vision, image.is_empty()) {
                let embeds = embeds.clone().slice(s![image.clone(), ..]);
                let compressed = vision.imadpt.forward(embeds);
                if let Some(tokens) = compressed.tokens {
                    prompt
                        .positions
                        .extend(compressed_positions(image, tokens.dims()[0]));
                    rows.push(tokens);
                }
                prompt.image = Some(compressed.global);
            }
            done = image.end;
        }
        prompt.rows = Tensor::cat(rows, 0);
        prompt
    }

    /// The decoder layer.
    #[must_use]
    pub fn decoder(&self) -> &Decoder {
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
