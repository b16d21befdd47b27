//! Where captures get the input embeddings from that they do not hold.

use std::error::Error;

use ndarray::Array2;

use super::token_sample::TokenSample;

/// The embedding table of a target: what it reads for a token of text.
pub trait TokenEmbeddings: Send + Sync {
    /// Values of an embedding.
    fn hidden(&self) -> usize;

    /// Copies the embedding of `token` to `row`, `[hidden]`; `false` if there is none.
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

/// The vision tower of a target: what it reads for the image tokens of a sample.
pub trait ImageFeatures: Send + Sync {
    /// The features of all images of a sample, one after the other, `[image_tokens, hidden]`.
    ///
    /// # Errors
    /// If an image is not there any more, or the tower fails.
    fn features(&self, sample: &TokenSample) -> Result<Array2<f32>, Box<dyn Error + Send + Sync>>;
}
