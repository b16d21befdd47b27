//! Compressed images, and their places among the rows of a batch.

use burn::tensor::{Tensor, s};

use super::adaptor::VisionAdaptor;
use super::layers::Linear;
use super::rows::{DraftRows, indices};

/// The adaptor's output for each image of a batch, `[queries, hidden]`; empty without an adaptor.
#[derive(Debug, Clone)]
pub(super) struct CompressedImages(Vec<Tensor<2>>);

impl CompressedImages {
    /// Compresses all images of a batch.
    ///
    /// # Shapes
    /// `embeds` `[tokens, hidden]`, the target's input embeddings.
    pub(super) fn of(
        adaptor: Option<&VisionAdaptor>,
        embeds: &Tensor<2>,
        rows: &DraftRows,
    ) -> Self {
        let Some(adaptor) = adaptor else {
            return Self(Vec::new());
        };
        let images = rows.images.iter();
        let image = |tokens: &std::ops::Range<usize>| {
            adaptor.forward(embeds.clone().slice(s![tokens.clone(), ..]))
        };
        Self(images.map(image).collect())
    }

    /// Combines each hidden state with the global vector of its image through `img_fc`. Without
    /// `img_fc`, returns the hidden states unchanged.
    ///
    /// # Shapes
    /// `hidden` and the result `[rows, hidden]`; `in_force` has, for each row, 0 or one more than
    /// the index of its image.
    pub(super) fn add_globals(
        &self,
        img_fc: Option<&Linear>,
        hidden: Tensor<2>,
        in_force: &[usize],
    ) -> Tensor<2> {
        let Some(img_fc) = img_fc else {
            return hidden;
        };
        let device = hidden.device();
        let none = Tensor::zeros([1, hidden.dims()[1]], &device);
        let globals = self.0.iter().map(|image| {
            let last = image.dims()[0] - 1;
            image.clone().slice(s![last..=last, ..])
        });
        let globals = Tensor::cat(std::iter::once(none).chain(globals).collect(), 0);
        let globals = globals.select(0, indices(in_force, &device));
        img_fc.forward(Tensor::cat(vec![hidden, globals], 1))
    }

    /// Arranges text and compressed images in the order of the sequence.
    ///
    /// # Shapes
    /// `text` `[text, hidden]`, result `[rows, hidden]`.
    pub(super) fn arrange(&self, text: Tensor<2>, rows: &DraftRows) -> Tensor<2> {
        let is_compressed = |image: &Tensor<2>| image.dims()[0] > 1;
        if !self.0.iter().any(is_compressed) {
            return text;
        }
        let device = text.device();
        let compressed = self.0.iter().map(|image| {
            let last = image.dims()[0] - 1;
            image.clone().slice(s![0..last, ..])
        });
        let parts = std::iter::once(text).chain(compressed).collect();
        Tensor::cat(parts, 0).select(0, indices(&rows.order, &device))
    }
}
