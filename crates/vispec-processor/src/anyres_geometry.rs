//! Geometry of any-resolution images (LLaVA-NeXT): which resolution an image is resized to, how it
//! is tiled, and which features of the tiles belong to the image rather than to its padding.
//!
//! The image processor counts tokens with these functions and the model packs features with them,
//! so the two cannot disagree.

use std::ops::Range;

use crate::image_size::ImageSize;

/// Returns the candidate that keeps most of the resolution of an image of size `original`. Ties go
/// to the least padding, then to the first candidate. `None` only if there are no candidates.
pub(crate) fn select_best_resolution(
    original: ImageSize,
    candidates: &[ImageSize],
) -> Option<ImageSize> {
    let mut best: Option<(ImageSize, usize, i128)> = None;
    for &candidate in candidates {
        let scale = scale_to_fit(original, candidate);
        let scaled = |side: usize| (side as f64 * scale) as usize;
        let effective = (scaled(original.width) * scaled(original.height)).min(original.area());
        let wasted = candidate.area() as i128 - effective as i128;
        let better = best.is_none_or(|(_, best_effective, best_wasted)| {
            effective > best_effective || (effective == best_effective && wasted < best_wasted)
        });
        if better {
            best = Some((candidate, effective, wasted));
        }
    }
    best.map(|(candidate, ..)| candidate)
}

fn scale_to_fit(original: ImageSize, target: ImageSize) -> f64 {
    let scale_width = target.width as f64 / original.width as f64;
    let scale_height = target.height as f64 / original.height as f64;
    scale_width.min(scale_height)
}

/// Returns the size of an image fitted into `target` with its aspect ratio kept. Both sides are at
/// least 1 if those of the arguments are.
pub(crate) fn size_within(original: ImageSize, target: ImageSize) -> ImageSize {
    let scale_width = target.width as f64 / original.width as f64;
    let scale_height = target.height as f64 / original.height as f64;
    if scale_width < scale_height {
        let height = (original.height as f64 * scale_width).ceil() as usize;
        ImageSize::new(height.min(target.height), target.width)
    } else {
        let width = (original.width as f64 * scale_height).ceil() as usize;
        ImageSize::new(target.height, width.min(target.width))
    }
}

/// Returns the rows and columns of the grid of tiles, not counting the tile of the whole image.
/// `None` only if there are no candidates. `tile_side` is in pixels and must not be zero.
#[must_use]
pub fn anyres_grid_shape(
    original: ImageSize,
    candidates: &[ImageSize],
    tile_side: usize,
) -> Option<ImageSize> {
    let best = select_best_resolution(original, candidates)?;
    Some(ImageSize::new(
        best.height / tile_side,
        best.width / tile_side,
    ))
}

/// The rows and columns of a feature grid that are kept; the rest is padding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpaddedRegion {
    /// Rows to keep; can be empty if the image is extremely wide.
    pub rows: Range<usize>,
    /// Columns to keep; can be empty if the image is extremely tall.
    pub columns: Range<usize>,
}

impl UnpaddedRegion {
    /// Returns the number of vectors that the region is packed into: its features and one newline
    /// per row.
    pub(crate) fn n_tokens(&self) -> usize {
        self.rows.len() * (self.columns.len() + 1)
    }
}

/// Returns the part of a feature grid (all tiles side by side) that shows the image. `original` is
/// the size of the image in pixels; only its aspect ratio matters.
#[must_use]
pub fn unpadded_region(feature_grid: ImageSize, original: ImageSize) -> UnpaddedRegion {
    let (grid_height, grid_width) = (feature_grid.height as f64, feature_grid.width as f64);
    let (height, width) = (original.height as f64, original.width as f64);
    if width / height > grid_width / grid_height {
        let kept = truncate_rounded(height * (grid_width / width));
        let rows = without_padding(feature_grid.height, kept);
        UnpaddedRegion {
            rows,
            columns: 0..feature_grid.width,
        }
    } else {
        let kept = truncate_rounded(width * (grid_height / height));
        let columns = without_padding(feature_grid.width, kept);
        UnpaddedRegion {
            rows: 0..feature_grid.height,
            columns,
        }
    }
}

fn without_padding(len: usize, kept: usize) -> Range<usize> {
    let padding = len.saturating_sub(kept) / 2;
    padding..len - padding
}

/// Returns the integer part after rounding to seven decimal places, which keeps 23.999999999 from
/// becoming 23. Formatting rounds the exact binary value half to even, as Python's `round` does.
fn truncate_rounded(value: f64) -> usize {
    format!("{value:.7}")
        .parse::<f64>()
        .map_or(0, |rounded| rounded as usize)
}

/// Returns the number of tokens of an image: the features of the whole-image tile, the kept
/// features of the other tiles, and one newline per row of these.
///
/// `tile_side` and `patch_size` are in pixels and must not be zero. `None` only if there are no
/// candidates.
pub(crate) fn anyres_token_count(
    original: ImageSize,
    candidates: &[ImageSize],
    tile_side: usize,
    patch_size: usize,
) -> Option<usize> {
    let grid = anyres_grid_shape(original, candidates, tile_side)?;
    let patches = tile_side / patch_size;
    let features = ImageSize::new(grid.height * patches, grid.width * patches);
    Some(patches * patches + unpadded_region(features, original).n_tokens())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISHED: [ImageSize; 5] = [
        ImageSize::new(336, 672),
        ImageSize::new(672, 336),
        ImageSize::new(672, 672),
        ImageSize::new(1008, 336),
        ImageSize::new(336, 1008),
    ];

    #[test]
    fn published_resolutions() {
        let best =
            |height, width| select_best_resolution(ImageSize::new(height, width), &PUBLISHED);
        assert_eq!(best(336, 672), Some(ImageSize::new(336, 672)));
        assert_eq!(best(1000, 1000), Some(ImageSize::new(672, 672)));
        assert_eq!(best(300, 1000), Some(ImageSize::new(336, 1008)));
        assert_eq!(best(10, 10), Some(ImageSize::new(336, 672)));
        assert_eq!(select_best_resolution(ImageSize::square(1), &[]), None);
    }

    #[test]
    fn published_token_count_of_a_square() {
        let n_tokens = anyres_token_count(ImageSize::square(672), &PUBLISHED, 336, 14);
        assert_eq!(n_tokens, Some(576 + 48 * 48 + 48));
    }

    #[test]
    fn padding_is_the_same_on_both_sides() {
        let region = unpadded_region(ImageSize::square(48), ImageSize::new(300, 1000));
        assert_eq!(
            region,
            UnpaddedRegion {
                rows: 17..31,
                columns: 0..48
            }
        );
        assert_eq!(region.n_tokens(), 14 * 49);
        let region = unpadded_region(ImageSize::square(48), ImageSize::new(1000, 1));
        assert_eq!(region.columns, 24..24);
    }
}
