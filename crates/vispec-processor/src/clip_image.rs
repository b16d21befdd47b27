//! Image processor of CLIP (LLaVA-1.5): resizes, crops the centre and normalises.

use std::ops::Range;

use serde_json::Value;

use crate::config_file::ConfigFile;
use crate::decoded_image::DecodedImage;
use crate::error::Result;
use crate::image_size::ImageSize;
use crate::normalization::{Normalization, require_bicubic};
use crate::pixel_values::{PixelValues, ProcessedImage};
use crate::resize::{RgbImage, RgbView, resize_window};

/// The values of `image_processor_type` that this processor implements.
const PROCESSOR_TYPES: &[&str] = &["CLIPImageProcessor", "CLIPImageProcessorFast"];

/// The size that an image is resized to before it is cropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ResizeTo {
    /// The short side gets this length; the aspect ratio is kept.
    ShortestEdge(usize),
    /// This size, regardless of the aspect ratio.
    Exactly(ImageSize),
}

/// Turns images into one square crop.
#[derive(Debug, Clone)]
pub struct ClipImageProcessor {
    normalization: Normalization,
    resize_to: ResizeTo,
    side: usize,
}

impl ClipImageProcessor {
    pub(crate) fn from_config(config: &ConfigFile) -> Result<Self> {
        config.require_one_of("image_processor_type", PROCESSOR_TYPES)?;
        Self::from_steps(config)
    }

    /// Reads the fields that CLIP and LLaVA-NeXT share. `size` is `{"shortest_edge"}`, `{"height",
    /// "width"}` or, in old files, the shortest edge itself; `crop_size` is `{"height", "width"}`
    /// or one number.
    pub(crate) fn from_steps(config: &ConfigFile) -> Result<Self> {
        require_bicubic(config)?;
        config.require_true("do_center_crop")?;
        let resize_to = match config.value("size") {
            Some(Value::Number(_)) => ResizeTo::ShortestEdge(config.required_side("size")?),
            _ => match config.optional_side("size.shortest_edge")? {
                Some(side) => ResizeTo::ShortestEdge(side),
                None if config.value("size.height").is_some() => ResizeTo::Exactly(ImageSize::new(
                    config.required_side("size.height")?,
                    config.required_side("size.width")?,
                )),
                None => return Err(config.missing("size.shortest_edge")),
            },
        };
        let side = match config.value("crop_size") {
            Some(Value::Number(_)) => config.required_side("crop_size")?,
            _ => {
                let side = config.required_side("crop_size.height")?;
                if config.required_side("crop_size.width")? != side {
                    return Err(config.invalid("crop_size", "a square"));
                }
                side
            }
        };
        Ok(Self {
            normalization: Normalization::from_config(config)?,
            resize_to,
            side,
        })
    }

    /// Returns the side of the crop in pixels.
    pub(crate) fn side(&self) -> usize {
        self.side
    }

    /// Resizes, crops and normalises an image.
    pub(crate) fn process(&self, image: &DecodedImage) -> ProcessedImage {
        let mut data = Vec::with_capacity(3 * self.side * self.side);
        self.append(image.into(), &mut data);
        ProcessedImage::Clip {
            pixels: PixelValues {
                data,
                shape: vec![3, self.side, self.side],
            },
        }
    }

    /// Returns the side of the square that LLaVA-NeXT resizes a whole image to.
    pub(crate) fn whole_image_side(&self) -> usize {
        match self.resize_to {
            ResizeTo::ShortestEdge(side) => side,
            ResizeTo::Exactly(size) => size.height.min(size.width),
        }
    }

    /// Resizes, crops and normalises an image, and appends it as `[3, side, side]`.
    pub(crate) fn append(&self, image: RgbView<'_>, data: &mut Vec<f32>) {
        self.normalization
            .append_planes(&self.resize_and_crop(image), data);
    }

    fn resize_and_crop(&self, image: RgbView<'_>) -> RgbImage {
        let target = match self.resize_to {
            ResizeTo::Exactly(size) => size,
            ResizeTo::ShortestEdge(side) => with_shortest_edge(image.size, side),
        };
        let (rows, top) = center_window(target.height, self.side);
        let (columns, left) = center_window(target.width, self.side);
        let window = resize_window(image, target, rows, columns);
        if window.size == ImageSize::square(self.side) {
            return window;
        }
        let mut padded = RgbImage::black(ImageSize::square(self.side));
        padded.paste(window.view(), top, left);
        padded
    }
}

fn with_shortest_edge(original: ImageSize, side: usize) -> ImageSize {
    let ImageSize { height, width } = original;
    let long = (side * height.max(width)) as f64 / height.min(width) as f64;
    let long = long as usize;
    if width <= height {
        ImageSize::new(long, side)
    } else {
        ImageSize::new(side, long)
    }
}

/// Returns the range of an axis that the centre crop keeps, and the number of black pixels before
/// it.
fn center_window(len: usize, crop: usize) -> (Range<usize>, usize) {
    if len >= crop {
        let start = (len - crop) / 2;
        (start..start + crop, 0)
    } else {
        // The larger half of the padding comes first.
        (0..len, (crop - len).div_ceil(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortest_edge_keeps_the_ratio() {
        assert_eq!(
            with_shortest_edge(ImageSize::new(67, 101), 84),
            ImageSize::new(84, 126)
        );
        assert_eq!(
            with_shortest_edge(ImageSize::new(300, 64), 84),
            ImageSize::new(393, 84)
        );
    }

    #[test]
    fn crops_and_pads_in_the_middle() {
        assert_eq!(center_window(10, 4), (3..7, 0));
        assert_eq!(center_window(9, 4), (2..6, 0));
        assert_eq!(center_window(3, 6), (0..3, 2));
        assert_eq!(center_window(4, 6), (0..4, 1));
    }
}
