//! Which rows the draft's decoder reads for a batch of samples, and where each comes from.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};

/// The rows of a batch: the samples one behind the other, without padding, images compressed.
///
/// Tokens are numbered through the batch. Position `s` of a sample stands for the hidden state of
/// token `s` beside the embedding of token `s + 1`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DraftRows {
    /// Token of each row of text, ascending.
    pub text: Vec<usize>,
    /// Image in force at each row of text: 0 for none, else one more than the image's index.
    pub text_image: Vec<usize>,
    /// Tokens of each image.
    pub images: Vec<Range<usize>>,
    /// Of each row, its source among all rows of text followed by all compressed image tokens.
    pub order: Vec<usize>,
    /// Position of each row in its own, uncompressed sample.
    pub positions: Vec<usize>,
    /// Rows of each sample.
    pub samples: Vec<Range<usize>>,
    /// Row of text that is the first of its sample, for each sample.
    pub first_text: Vec<usize>,
    /// What each row of text reads when outputs are fed back: a row of the output; or, counted
    /// from behind the last of them, the first hidden state of a sample; or, last, zeros.
    pub fed_back: Vec<usize>,
    /// Row of each token; none for tokens of images that left no row there.
    pub row_of: Vec<Option<usize>>,
}

/// What a row stands for while rows are laid out.
enum Source {
    Text(usize),
    Compressed(usize),
}

impl DraftRows {
    /// Lays out samples with the given image masks; `n_queries` is 0 for a draft that reads images
    /// like text.
    ///
    /// # Arguments
    /// * `masks` - for each sample, whether the embedding at each position is an image's.
    #[must_use]
    pub fn new(masks: &[Vec<bool>], n_queries: usize) -> Self {
        let mut rows = Self::default();
        let mut sources = Vec::new();
        let mut n_compressed = 0;
        let mut first_token = 0;
        for mask in masks {
            let first_row = sources.len();
            let first_text = rows.text.len();
            let mut image_in_force = 0;
            rows.row_of.resize(first_token + mask.len(), None);
            let mut s = 0;
            while s < mask.len() {
                if n_queries == 0 || !mask[s] {
                    rows.row_of[first_token + s] = Some(sources.len());
                    sources.push(Source::Text(rows.text.len()));
                    rows.positions.push(s);
                    rows.text.push(first_token + s);
                    rows.text_image.push(image_in_force);
                    s += 1;
                    continue;
                }
                let end = (s..mask.len()).find(|&i| !mask[i]).unwrap_or(mask.len());
                for i in 0..n_queries - 1 {
                    // The last places of the image; the first ones share its first place if there
                    // are more compressed tokens than places.
                    let position = (end + i).saturating_sub(n_queries - 1).max(s);
                    rows.row_of[first_token + position] = Some(sources.len());
                    sources.push(Source::Compressed(n_compressed));
                    rows.positions.push(position);
                    n_compressed += 1;
                }
                rows.images.push(first_token + s..first_token + end);
                image_in_force = rows.images.len();
                s = end;
            }
            rows.samples.push(first_row..sources.len());
            rows.first_text.push(first_text);
            first_token += mask.len();
        }
        let n_text = rows.text.len();
        rows.order = sources
            .iter()
            .map(|source| match source {
                Source::Text(text) => *text,
                Source::Compressed(compressed) => n_text + compressed,
            })
            .collect();
        rows.connect(masks);
        rows
    }

    /// Fills `fed_back`.
    fn connect(&mut self, masks: &[Vec<bool>]) {
        let n_rows = self.order.len();
        let mut first_token = 0;
        let mut text = self.text.iter().peekable();
        for (sample, mask) in masks.iter().enumerate() {
            let end = first_token + mask.len();
            while let Some(&token) = text.next_if(|&&token| token < end) {
                let source = if token == first_token {
                    n_rows + sample
                } else {
                    self.row_of[token - 1].unwrap_or(n_rows + masks.len())
                };
                self.fed_back.push(source);
            }
            first_token = end;
        }
    }
}

/// Rows to select, on `device`.
pub(crate) fn indices(values: &[usize], device: &Device) -> Tensor<1, Int> {
    let values: Vec<i64> = values
        .iter()
        .map(|&value| i64::try_from(value).unwrap_or(i64::MAX))
        .collect();
    let shape = [values.len()];
    Tensor::from_data(TensorData::new(values, shape), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(text: &str) -> Vec<bool> {
        text.bytes().map(|b| b == b'#').collect()
    }

    #[test]
    fn images_leave_their_last_places() {
        let rows = DraftRows::new(&[mask("..###.."), mask("#.")], 3);
        assert_eq!(rows.text, [0, 1, 5, 6, 8]);
        assert_eq!(rows.text_image, [0, 0, 1, 1, 2]);
        assert_eq!(rows.images, [2..5, 7..8]);
        assert_eq!(rows.positions, [0, 1, 3, 4, 5, 6, 0, 0, 1]);
        assert_eq!(rows.order, [0, 1, 5, 6, 2, 3, 7, 8, 4]);
        assert_eq!(rows.samples, [0..6, 6..9]);
        // 9 rows, then the first states of two samples, then zeros.
        assert_eq!(rows.fed_back, [9, 0, 3, 4, 7]);
    }

    #[test]
    fn a_single_query_leaves_no_row() {
        let rows = DraftRows::new(&[mask(".##.")], 1);
        assert_eq!(rows.positions, [0, 3]);
        assert_eq!(rows.fed_back, [2, 3]);
        assert_eq!(rows.row_of, [Some(0), None, None, Some(1)]);
    }

    #[test]
    fn without_queries_images_are_text() {
        let rows = DraftRows::new(&[mask(".##.")], 0);
        assert_eq!(rows.positions, [0, 1, 2, 3]);
        assert_eq!(rows.fed_back, [4, 0, 1, 2]);
        assert!(rows.images.is_empty());
    }
}
