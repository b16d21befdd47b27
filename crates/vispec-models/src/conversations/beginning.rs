//! The tokens and images that a conversation begins with.

use std::ops::Range;

use vispec_core::{Prompt as _, TokenId};

use crate::image_digest::ImageDigest;
use crate::prompt::EncodedPrompt;

/// Tokens of a prompt and its answer, with the positions and contents of images.
#[derive(Debug)]
pub(super) struct Beginning {
    token_ids: Vec<TokenId>,
    images: Vec<(Range<usize>, Option<ImageDigest>)>,
}

impl Beginning {
    pub(super) fn of(prompt: &EncodedPrompt, answer: &[TokenId]) -> Self {
        let digests = prompt.images().iter().map(|image| Some(image.digest));
        let digests = digests.chain(std::iter::repeat(None));
        let runs = prompt.image_runs().iter().cloned();
        Self {
            token_ids: [prompt.token_ids(), answer].concat(),
            images: runs.zip(digests).collect(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.token_ids.len()
    }

    pub(super) fn n_bytes(&self) -> usize {
        size_of_val(&*self.token_ids) + size_of_val(&*self.images)
    }

    /// Keeps the first `len` tokens.
    pub(super) fn truncate(&mut self, len: usize) {
        self.token_ids.truncate(len);
    }

    /// Returns the number of tokens that both begin with, without splitting an image. An image of
    /// unknown content equals no other.
    pub(super) fn shared(&self, other: &Self) -> usize {
        let tokens = self.token_ids.iter().zip(&other.token_ids);
        let len = tokens.take_while(|(ours, theirs)| ours == theirs).count();
        let mut images = (self.images.iter(), other.images.iter());
        loop {
            let (ours, theirs) = (images.0.next(), images.1.next());
            let first = [ours, theirs].into_iter().flatten();
            let Some(start) = first.map(|(run, _)| run.start).min() else {
                return len;
            };
            if start >= len {
                return len;
            }
            match (ours, theirs) {
                (Some((run, Some(ours))), Some((their_run, Some(theirs))))
                    if run == their_run && ours == theirs && run.end <= len => {}
                _ => return start,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use vispec_processor::{DecodedImage, ImageSize};

    use super::*;

    fn digest(shade: u8) -> Option<ImageDigest> {
        let image = DecodedImage::from_rgb8(ImageSize::new(1, 1), vec![shade; 3]).unwrap();
        Some(ImageDigest::of(&image))
    }

    fn beginning(
        token_ids: &[TokenId],
        images: &[(Range<usize>, Option<ImageDigest>)],
    ) -> Beginning {
        Beginning {
            token_ids: token_ids.to_vec(),
            images: images.to_vec(),
        }
    }

    #[test]
    fn tokens_are_shared_up_to_the_first_that_differs() {
        let text = beginning(&[1, 2, 3, 4], &[]);
        assert_eq!(text.shared(&beginning(&[1, 2, 5], &[])), 2);
        assert_eq!(text.shared(&beginning(&[1, 2, 3, 4, 5], &[])), 4);
        assert_eq!(text.shared(&beginning(&[2], &[])), 0);
    }

    #[test]
    fn an_image_is_shared_if_it_is_the_same_and_whole() {
        let one = beginning(&[1, 9, 9, 2], &[(1..3, digest(7))]);
        assert_eq!(
            one.shared(&beginning(&[1, 9, 9, 2, 3], &[(1..3, digest(7))])),
            4
        );
        for images in [
            vec![(1..3, digest(8))],
            vec![(1..3, None)],
            vec![(1..2, digest(7)), (2..3, digest(7))],
            vec![],
        ] {
            let other = beginning(&[1, 9, 9, 2, 3], &images);
            assert_eq!(one.shared(&other), 1, "{images:?}");
            assert_eq!(other.shared(&one), 1, "{images:?}");
        }
        // A longer image that starts at the same position shares nothing.
        let longer = beginning(&[1, 9, 9, 9, 2], &[(1..4, digest(7))]);
        assert_eq!(one.shared(&longer), 1);
        // Images after the shared tokens do not matter.
        let later = beginning(&[1, 5, 9], &[(2..3, digest(1))]);
        assert_eq!(one.shared(&later), 1);
    }
}
