//! Sources of the input embeddings that a capture does not store.

use std::error::Error;

use ndarray::Array2;

use super::token_sample::TokenSample;

/// The embedding table of a target, which maps text tokens to input vectors.
pub trait TokenEmbeddings: Send + Sync {
    /// Width of an embedding.
    fn hidden(&self) -> usize;

    /// Copies the embedding of `token` to `row`, `[hidden]`; returns `false` if there is none.
    fn copy_row(&self, token: u32, row: &mut [f32]) -> bool;
}

/// `[vocab, hidden]`
impl TokenEmbeddings for Array2<f32> {
    fn hidden(&self) -> usize {
        self.ncols()
    }

    fn copy_row(&self, token: u32, row: &mut [f32]) -> bool {
        let Some(index) = usize::try_from(token).ok().filter(|&i| i < self.nrows()) else {
            return false;
        };
        for (value, &embedding) in row.iter_mut().zip(self.row(index)) {
            *value = embedding;
        }
        true
    }
}

/// The vision tower of a target, which computes the input vectors of a sample's image tokens.
pub trait ImageFeatures: Send + Sync {
    /// Returns the features of all images of a sample, concatenated, `[image_tokens, hidden]`.
    ///
    /// # Errors
    /// If an image no longer exists, or the tower fails.
    fn features(&self, sample: &TokenSample) -> Result<Array2<f32>, Box<dyn Error + Send + Sync>>;
}
