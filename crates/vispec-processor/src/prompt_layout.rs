//! The places of images and videos among the tokens of a prompt.

use std::ops::Range;

use crate::error::{ProcessorError, Result};

/// The kind of media in a run of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MediaKind {
    /// An image.
    Image,
    /// A video, or a part of one.
    Video,
}

/// The media of one kind to place into a prompt.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MediaPlaces<'a> {
    /// Their kind.
    pub kind: MediaKind,
    /// The placeholder token of each.
    pub token_id: u32,
    /// The text of that token.
    pub placeholder: &'a str,
    /// Number of tokens of each.
    pub lengths: &'a [usize],
}

/// Token ids of a prompt in which every image takes one place per feature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PromptLayout {
    /// Token ids, `[seq]`; places of media hold the placeholder token of their kind.
    pub token_ids: Vec<u32>,
    /// Token range of each image and each part of a video, in order. Ranges may touch.
    pub image_runs: Vec<Range<usize>>,
    /// The kind of each run.
    pub kinds: Vec<MediaKind>,
}

impl PromptLayout {
    /// Repeats each placeholder of `unexpanded` once per token of its image or video part.
    ///
    /// The ids are the same as when the placeholder is repeated in the text before encoding, as in
    /// the published processors, because a special token is never merged with its neighbours.
    ///
    /// # Errors
    /// [`ProcessorError::PlaceholderCount`] if the number of placeholders of a kind differs from
    /// the number of media.
    pub(crate) fn expand(unexpanded: &[u32], media: &[MediaPlaces<'_>]) -> Result<Self> {
        for places in media {
            let ids = unexpanded.iter();
            let found = ids.filter(|id| **id == places.token_id).count();
            if found != places.lengths.len() {
                return Err(ProcessorError::PlaceholderCount {
                    placeholder: places.placeholder.to_owned(),
                    found,
                    expected: places.lengths.len(),
                });
            }
        }
        let mut lengths: Vec<_> = media.iter().map(|places| places.lengths.iter()).collect();
        let mut layout = Self {
            token_ids: Vec::new(),
            image_runs: Vec::new(),
            kinds: Vec::new(),
        };
        for &id in unexpanded {
            let kind = media.iter().position(|places| places.token_id == id);
            let next = kind.and_then(|kind| Some((kind, *lengths[kind].next()?)));
            let Some((kind, n_tokens)) = next else {
                layout.token_ids.push(id);
                continue;
            };
            let start = layout.token_ids.len();
            layout.token_ids.resize(start + n_tokens, id);
            layout.image_runs.push(start..layout.token_ids.len());
            layout.kinds.push(media[kind].kind);
        }
        Ok(layout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(lengths: &[usize]) -> MediaPlaces<'_> {
        MediaPlaces {
            kind: MediaKind::Image,
            token_id: 9,
            placeholder: "<image>",
            lengths,
        }
    }

    #[test]
    fn kinds_are_counted_apart() {
        let videos = MediaPlaces {
            kind: MediaKind::Video,
            token_id: 5,
            placeholder: "<video>",
            lengths: &[1, 2],
        };
        let media = [images(&[2]), videos];
        let layout = PromptLayout::expand(&[5, 7, 9, 5], &media).unwrap();
        assert_eq!(layout.token_ids, [5, 7, 9, 9, 5, 5]);
        assert_eq!(layout.image_runs, [0..1, 2..4, 4..6]);
        let kinds = [MediaKind::Video, MediaKind::Image, MediaKind::Video];
        assert_eq!(layout.kinds, kinds);
        assert!(PromptLayout::expand(&[5, 9], &media).is_err());
    }

    #[test]
    fn adjacent_images_keep_their_own_runs() {
        let layout = PromptLayout::expand(&[7, 9, 9, 8], &[images(&[2, 3])]).unwrap();
        assert_eq!(layout.token_ids, [7, 9, 9, 9, 9, 9, 8]);
        assert_eq!(layout.image_runs, [1..3, 3..6]);
    }

    #[test]
    fn counts_must_agree() {
        let error = PromptLayout::expand(&[7, 9], &[images(&[])]).unwrap_err();
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
