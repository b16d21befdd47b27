//! Output of a vision tower for one image.

use burn::tensor::Tensor;

/// Vectors of one image for the language model.
#[derive(Debug, Clone)]
pub struct ImageFeatures {
    /// Vectors that replace the embeddings of the image tokens, `[image_tokens, hidden]`.
    pub tokens: Tensor<2>,
    /// Vectors that are added to the hidden states of these tokens after layers 0, 1, …
    /// (DeepStack), each `[image_tokens, hidden]`. Empty in models without DeepStack.
    pub levels: Vec<Tensor<2>>,
}

impl ImageFeatures {
    /// Returns the number of bytes of all vectors.
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
