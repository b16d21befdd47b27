//! Where the images of a prompt are among its tokens.

use std::ops::Range;

use crate::error::{ProcessorError, Result};

/// Token ids of a prompt in which every image takes as many places as it has features.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptLayout {
    /// Token ids, `[seq]`; places of images hold the image token.
    pub token_ids: Vec<u32>,
    /// Positions of each image, in order. Runs of different images may touch.
    pub image_runs: Vec<Range<usize>>,
}

impl PromptLayout {
    /// Repeats each image token of `unexpanded` as often as its image has tokens.
    ///
    /// This gives the same ids as repeating the placeholder in the text and encoding that, as the
    /// published processors do, since a special token is never merged with its neighbours.
    ///
    /// # Errors
    /// [`ProcessorError::PlaceholderCount`] if there are more or fewer image tokens than images,
    /// with `placeholder` as the image token's text.
    pub fn expand(
        unexpanded: &[u32],
        image_token_id: u32,
        placeholder: &str,
        image_lengths: &[usize],
    ) -> Result<Self> {
        let found = unexpanded
            .iter()
            .filter(|id| **id == image_token_id)
            .count();
        if found != image_lengths.len() {
            return Err(ProcessorError::PlaceholderCount {
                placeholder: placeholder.to_owned(),
                found,
                expected: image_lengths.len(),
            });
        }
        let len = unexpanded.len() - found + image_lengths.iter().sum::<usize>();
        let mut token_ids = Vec::with_capacity(len);
        let mut image_runs = Vec::with_capacity(found);
        let mut lengths = image_lengths.iter();
        for &id in unexpanded {
            if id != image_token_id {
                token_ids.push(id);
            } else if let Some(n_tokens) = lengths.next() {
                let start = token_ids.len();
                token_ids.resize(start + n_tokens, image_token_id);
                image_runs.push(start..token_ids.len());
            }
        }
        Ok(Self {
            token_ids,
            image_runs,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_images_keep_their_own_runs() {
        let layout = PromptLayout::expand(&[7, 9, 9, 8], 9, "<image>", &[2, 3]).unwrap();
        assert_eq!(layout.token_ids, [7, 9, 9, 9, 9, 9, 8]);
        assert_eq!(layout.image_runs, [1..3, 3..6]);
    }

    #[test]
    fn counts_must_agree() {
        let error = PromptLayout::expand(&[7, 9], 9, "<image>", &[]).unwrap_err();
        assert!(matches!(
            error,
            ProcessorError::PlaceholderCount {
                found: 1,
                expected: 0,
                ..
            }
        ));
    }
}
