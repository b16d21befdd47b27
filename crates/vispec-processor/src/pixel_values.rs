//! The output of an image processor, and input of a vision tower.

use crate::image_size::ImageSize;

/// A dense row-major array of normalised pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct PixelValues {
    /// Elements, last axis fastest.
    pub data: Vec<f32>,
    /// Length of each axis; their product is the length of `data`.
    pub shape: Vec<usize>,
}

/// One image, or a part of a video, ready for the vision tower of its model family.
#[derive(Debug, Clone, PartialEq)]
pub enum ProcessedImage {
    /// Qwen2.5-VL and Qwen3-VL: the image cut into patches.
    Qwen {
        /// `[patches, channels * temporal_patch_size * patch_size * patch_size]`.
        ///
        /// A row is one patch in the order channel, frame, row, column; both frames of an image are
        /// the same. Rows are ordered so that the `merge_size * merge_size` patches that become one
        /// token are adjacent.
        pixels: PixelValues,
        /// Groups of frames (1 except for videos of Qwen2.5-VL), rows and columns of the patch
        /// grid, before merging.
        grid_thw: [usize; 3],
    },
    /// LLaVA-1.5: one square crop.
    Clip {
        /// `[3, image_size, image_size]`.
        pixels: PixelValues,
    },
    /// LLaVA-NeXT: the whole image scaled down, followed by tiles of the enlarged image.
    Anyres {
        /// `[tiles, 3, image_size, image_size]`; tile 0 is the whole image, the others are in
        /// reading order.
        pixels: PixelValues,
        /// Size of the original image, needed to pack the features.
        original_size: ImageSize,
    },
}

impl ProcessedImage {
    /// Concatenates groups of frames of one size.
    pub(crate) fn stacked(groups: Vec<Self>) -> Self {
        let mut all = PixelValues {
            data: Vec::new(),
            shape: vec![0, 0],
        };
        let mut grid = [0; 3];
        for group in groups {
            let Self::Qwen { pixels, grid_thw } = group else {
                unreachable!("only Qwen groups frames")
            };
            all.data.extend_from_slice(&pixels.data);
            all.shape = vec![all.shape[0] + pixels.shape[0], pixels.shape[1]];
            grid = [grid[0] + grid_thw[0], grid_thw[1], grid_thw[2]];
        }
        Self::Qwen {
            pixels: all,
            grid_thw: grid,
        }
    }

    /// Returns the pixels.
    #[must_use]
    pub fn pixels(&self) -> &PixelValues {
        match self {
            Self::Qwen { pixels, .. } | Self::Clip { pixels } | Self::Anyres { pixels, .. } => {
                pixels
            }
        }
    }
}
