//! A prompt after the vision tower: what both the target and the draft start from.

use std::ops::Range;

use burn::tensor::{Tensor, s};
use vispec_core::{Prompt, TokenId};
use vispec_processor::Positions;

use crate::image_digest::ImageDigest;
use crate::image_features::ImageFeatures;
use crate::nn::LayerRows;

/// Token ids and the embeddings that the target reads for them, image features merged in.
#[derive(Debug, Clone)]
pub struct EncodedPrompt {
    token_ids: Vec<TokenId>,
    embeds: Tensor<2>,
    image_runs: Vec<Range<usize>>,
    positions: Positions,
    rope_delta: i64,
    /// What is added at the places of images behind the first layers, each `[image_tokens, hidden]`
    /// for the tokens of all images.
    levels: Vec<Tensor<2>>,
    images: Vec<PromptImage>,
}

/// An image of a prompt, by its content.
#[derive(Debug, Clone)]
pub(crate) struct PromptImage {
    pub(crate) digest: ImageDigest,
    pub(crate) features: ImageFeatures,
}

impl EncodedPrompt {
    /// A prompt of which everything is known.
    ///
    /// # Arguments
    /// * `embeds` - `[prompt, hidden]`
    /// * `image_runs` - places of each image, ascending.
    /// * `positions`, `rope_delta` - rotary positions, which only targets read.
    #[must_use]
    pub fn new(
        token_ids: Vec<TokenId>,
        embeds: Tensor<2>,
        image_runs: Vec<Range<usize>>,
        (positions, rope_delta): (Positions, i64),
    ) -> Self {
        Self {
            token_ids,
            embeds,
            image_runs,
            positions,
            rope_delta,
            levels: Vec::new(),
            images: Vec::new(),
        }
    }

    /// The same prompt for a target that adds more at the places of images behind its first layers
    /// (DeepStack).
    ///
    /// # Arguments
    /// * `levels` - each `[image_tokens, hidden]` for the tokens of all images, in order.
    #[must_use]
    pub(crate) fn with_levels(mut self, levels: Vec<Tensor<2>>) -> Self {
        self.levels = levels;
        self
    }

    /// What is added to the tokens at `range` behind the first layers; rows count from its start.
    pub(crate) fn layer_rows(&self, range: Range<usize>) -> LayerRows {
        if self.levels.is_empty() {
            return LayerRows::default();
        }
        let places = || self.image_runs.iter().flat_map(Clone::clone);
        let before = places().take_while(|&place| place < range.start).count();
        let rows = places().skip(before).take_while(|&place| place < range.end);
        let rows: Vec<usize> = rows.map(|place| place - range.start).collect();
        if rows.is_empty() {
            return LayerRows::default();
        }
        let of_range = s![before..before + rows.len(), ..];
        let levels = self.levels.iter();
        LayerRows {
            levels: levels.map(|level| level.clone().slice(of_range)).collect(),
            rows,
        }
    }

    /// The same prompt with its images by content, so that another prompt that begins like it can
    /// be told from one that begins with other images.
    #[must_use]
    pub(crate) fn with_images(mut self, images: Vec<PromptImage>) -> Self {
        self.images = images;
        self
    }

    /// The images in order; none if their content is not known.
    pub(crate) fn images(&self) -> &[PromptImage] {
        &self.images
    }

    /// Input embeddings `[prompt, hidden]`.
    #[must_use]
    pub fn embeds(&self) -> &Tensor<2> {
        &self.embeds
    }

    /// Positions of each image's tokens, in order.
    #[must_use]
    pub fn image_runs(&self) -> &[Range<usize>] {
        &self.image_runs
    }

    /// Rotary positions of the tokens.
    #[must_use]
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Position of the first generated token minus the number of tokens in the prompt.
    #[must_use]
    pub fn rope_delta(&self) -> i64 {
        self.rope_delta
    }
}

impl Prompt for EncodedPrompt {
    fn token_ids(&self) -> &[TokenId] {
        &self.token_ids
    }
}
