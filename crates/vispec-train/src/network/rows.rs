//! The rows that a draft's decoder reads for a batch of samples, and the source of each row.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};

/// The rows of a batch: all samples concatenated without padding, with images compressed.
///
/// Tokens are numbered throughout the batch. Position `s` of a sample combines the hidden state of
/// token `s` with the embedding of token `s + 1`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DraftRows {
    /// Token of each text row, ascending.
    pub text: Vec<usize>,
    /// For each text row, 0 or one more than the index of the last image before it.
    pub text_image: Vec<usize>,
    /// Tokens of each image.
    pub images: Vec<Range<usize>>,
    /// For each row, the index of its source among all text rows followed by all compressed image
    /// tokens.
    pub order: Vec<usize>,
    /// Position of each row in its uncompressed sample.
    pub positions: Vec<usize>,
    /// Rows of each sample.
    pub samples: Vec<Range<usize>>,
    /// For each sample, its first text row.
    pub first_text: Vec<usize>,
    /// For each text row, the index of what it reads when outputs are fed back. The sources are all
    /// rows of the output, followed by the first hidden state of each sample and a row of zeros.
    pub fed_back: Vec<usize>,
    /// Row of each token; `None` for image tokens without a row.
    pub row_of: Vec<Option<usize>>,
}

/// The source of a row during layout.
enum Source {
    Text(usize),
    Compressed(usize),
}

impl DraftRows {
    /// Lays out samples with the given image masks.
    ///
    /// # Arguments
    /// * `masks` - for each sample, whether the embedding at each position is an image token's.
    /// * `n_queries` - number of the draft's learned queries; 0 if it reads images like text.
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
                    // Compressed tokens take the last positions of the image. If there are more of
                    // them than positions, the first ones share its first position.
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

/// Puts the indices of rows to select on `device`.
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
        // Sources: 9 rows, then the first states of two samples, then zeros.
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
