//! Where compact captures get the embeddings of their text from.

use ndarray::Array2;

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
