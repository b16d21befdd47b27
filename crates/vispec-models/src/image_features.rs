//! What a vision tower makes of an image.

use burn::tensor::Tensor;

/// Vectors of one image for the language model.
#[derive(Debug, Clone)]
pub struct ImageFeatures {
    /// What stands in place of the embeddings of the image's tokens, `[image_tokens, hidden]`.
    pub tokens: Tensor<2>,
    /// What is added to the hidden states of these tokens behind layer 0, 1, … (DeepStack), each
    /// `[image_tokens, hidden]`. None in models without it.
    pub levels: Vec<Tensor<2>>,
}

impl ImageFeatures {
    /// Memory of all vectors.
    pub(crate) fn n_bytes(&self) -> usize {
        let all = std::iter::once(&self.tokens).chain(&self.levels);
        all.map(|t| t.shape().num_elements() * t.dtype().size())
            .sum()
    }
}

impl From<Tensor<2>> for ImageFeatures {
    fn from(tokens: Tensor<2>) -> Self {
        Self {
            tokens,
            levels: Vec::new(),
        }
    }
}
