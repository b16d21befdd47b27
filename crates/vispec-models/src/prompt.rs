//! A prompt after the vision tower, which both target and draft read.

use std::ops::Range;

use burn::tensor::{Tensor, s};
use vispec_core::{Prompt, TokenId};
use vispec_processor::Positions;

use crate::image_digest::ImageDigest;
use crate::image_features::ImageFeatures;
use crate::nn::LayerRows;

/// Token ids and the input embeddings of the target, with image features merged in.
#[derive(Debug, Clone)]
pub struct EncodedPrompt {
    token_ids: Vec<TokenId>,
    embeds: Tensor<2>,
    image_runs: Vec<Range<usize>>,
    positions: Positions,
    rope_delta: i64,
    /// Vectors that are added to image tokens after the first layers, each `[image_tokens, hidden]`
    /// for the tokens of all images.
    levels: Vec<Tensor<2>>,
    images: Vec<PromptImage>,
}

/// An image of a prompt with its digest.
#[derive(Debug, Clone)]
pub(crate) struct PromptImage {
    pub(crate) digest: ImageDigest,
    pub(crate) features: ImageFeatures,
}

impl EncodedPrompt {
    /// Creates a prompt from its parts.
    ///
    /// # Arguments
    /// * `embeds` - `[prompt, hidden]`
    /// * `image_runs` - token positions of each image, ascending.
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

    /// Adds the vectors for a target that adds more to image tokens after its first layers
    /// (DeepStack).
    ///
    /// # Arguments
    /// * `levels` - one `[image_tokens, hidden]` per layer, for the tokens of all images in order.
    pub(crate) fn with_levels(mut self, levels: Vec<Tensor<2>>) -> Self {
        self.levels = levels;
        self
    }

    /// Returns the vectors that are added to the tokens at `range` after the first layers. Rows
    /// count from the start of the range.
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

    /// Adds the contents of the images, so that prompts with equal tokens but different images can
    /// be distinguished.
    pub(crate) fn with_images(mut self, images: Vec<PromptImage>) -> Self {
        self.images = images;
        self
    }

    /// Returns the images in order; empty if their content is not known.
    pub(crate) fn images(&self) -> &[PromptImage] {
        &self.images
    }

    /// Returns the input embeddings `[prompt, hidden]`.
    #[must_use]
    pub fn embeds(&self) -> &Tensor<2> {
        &self.embeds
    }

    /// Returns the token positions of each image, in order.
    #[must_use]
    pub fn image_runs(&self) -> &[Range<usize>] {
        &self.image_runs
    }

    /// Returns the rotary positions of the tokens.
    #[must_use]
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Returns the position of the first generated token minus the number of tokens in the prompt.
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
