//! Image processor of Qwen2.5-VL and Qwen3-VL: resizes to multiples of a token and cuts into
//! patches.

use crate::config_file::ConfigFile;
use crate::decoded_image::DecodedImage;
use crate::error::{ProcessorError, Result};
use crate::image_size::ImageSize;
use crate::normalization::{Normalization, require_bicubic};
use crate::pixel_values::{PixelValues, ProcessedImage};
use crate::resize::{RgbImage, resize};

/// Maximum ratio of the longest to the shortest side, as in the published processor.
const MAX_ASPECT_RATIO: f64 = 200.0;

/// The values of `image_processor_type` that this processor implements.
const PROCESSOR_TYPES: &[&str] = &[
    "Qwen2VLImageProcessor",
    "Qwen2VLImageProcessorFast",
    "Qwen2_5_VLImageProcessor",
];

/// Returns the size that an image is resized to: both sides multiples of `factor`, the area between
/// `min_pixels` and `max_pixels`, the aspect ratio kept as closely as possible.
///
/// Enlarges images with a side shorter than `factor`, like later versions of transformers; version
/// 4.51 refuses them.
///
/// # Errors
/// [`ProcessorError::AspectRatio`] if the ratio of the sides is above 200.
pub fn smart_resize(
    original: ImageSize,
    factor: usize,
    min_pixels: usize,
    max_pixels: usize,
) -> Result<ImageSize> {
    let ImageSize { height, width } = original;
    let ratio = height.max(width) as f64 / height.min(width) as f64;
    if ratio > MAX_ASPECT_RATIO {
        return Err(ProcessorError::AspectRatio {
            height,
            width,
            found: ratio,
            limit: MAX_ASPECT_RATIO,
        });
    }
    let multiple = factor as f64;
    // At least one token high and wide, regardless of the limits.
    let side = |n_units: f64| (n_units as usize).max(1) * factor;
    let area = original.area() as f64;
    let rounded = |length: usize| side((length as f64 / multiple).round_ties_even());
    let unclamped = |length: usize| (length as f64 / multiple).round_ties_even() * multiple;
    let rounded_area = unclamped(height) * unclamped(width);
    Ok(if rounded_area > max_pixels as f64 {
        let shrink = (area / max_pixels as f64).sqrt();
        let shrunk = |length: usize| side((length as f64 / shrink / multiple).floor());
        ImageSize::new(shrunk(height), shrunk(width))
    } else if rounded_area < min_pixels as f64 {
        let stretch = (min_pixels as f64 / area).sqrt();
        let stretched = |length: usize| side((length as f64 * stretch / multiple).ceil());
        ImageSize::new(stretched(height), stretched(width))
    } else {
        ImageSize::new(rounded(height), rounded(width))
    })
}

/// Turns images into rows of patches.
#[derive(Debug, Clone)]
pub struct QwenImageProcessor {
    normalization: Normalization,
    patch_size: usize,
    temporal_patch_size: usize,
    merge_size: usize,
    min_pixels: usize,
    max_pixels: usize,
}

impl QwenImageProcessor {
    /// Reads the config of the image processor. As in transformers, `patch_size`,
    /// `temporal_patch_size` and `merge_size` default to 14, 2 and 2. The limits of the area are
    /// `min_pixels` and `max_pixels`, else `size.shortest_edge` and `size.longest_edge`, else 56 *
    /// 56 and 28 * 28 * 1280.
    pub(crate) fn from_config(config: &ConfigFile) -> Result<Self> {
        config.require_one_of("image_processor_type", PROCESSOR_TYPES)?;
        require_bicubic(config)?;
        let limit = |field: &str, edge: &str, default| -> Result<usize> {
            match config.optional_size(field)? {
                Some(limit) => Ok(limit),
                None => Ok(config.optional_size(edge)?.unwrap_or(default)),
            }
        };
        let min_pixels = limit("min_pixels", "size.shortest_edge", 56 * 56)?;
        let max_pixels = limit("max_pixels", "size.longest_edge", 28 * 28 * 1280)?;
        if min_pixels > max_pixels {
            let field = if config.value("max_pixels").is_some() {
                "max_pixels"
            } else {
                "size.longest_edge"
            };
            return Err(config.invalid(field, &format!("at least {min_pixels}, the lower limit")));
        }
        let size_or = |field: &str, default| -> Result<usize> {
            Ok(config.optional_side(field)?.unwrap_or(default))
        };
        Ok(Self {
            normalization: Normalization::from_config(config)?,
            patch_size: size_or("patch_size", 14)?,
            temporal_patch_size: size_or("temporal_patch_size", 2)?,
            merge_size: size_or("merge_size", 2)?,
            min_pixels,
            max_pixels,
        })
    }

    /// Sets the limits of the area, where given.
    ///
    /// # Errors
    /// [`ProcessorError::PixelLimits`] if the lower limit is then 0 or above the upper one.
    pub(crate) fn with_pixels(mut self, min: Option<usize>, max: Option<usize>) -> Result<Self> {
        self.min_pixels = min.unwrap_or(self.min_pixels);
        self.max_pixels = max.unwrap_or(self.max_pixels);
        if !(1..=self.max_pixels).contains(&self.min_pixels) {
            return Err(ProcessorError::PixelLimits {
                min: self.min_pixels,
                max: self.max_pixels,
            });
        }
        Ok(self)
    }

    /// Returns the side of a patch in pixels.
    pub(crate) fn patch_size(&self) -> usize {
        self.patch_size
    }

    /// Returns the number of patches along one side of a token.
    pub(crate) fn merge_size(&self) -> usize {
        self.merge_size
    }

    /// Returns the frames, rows and columns of an image's patch grid, before merging.
    ///
    /// # Errors
    /// [`ProcessorError::AspectRatio`].
    pub(crate) fn grid_thw(&self, original: ImageSize) -> Result<[usize; 3]> {
        let size = self.target_size(original)?;
        Ok([
            1,
            size.height / self.patch_size,
            size.width / self.patch_size,
        ])
    }

    /// Returns the number of tokens that an image takes in the prompt.
    ///
    /// # Errors
    /// [`ProcessorError::AspectRatio`].
    pub(crate) fn n_tokens(&self, original: ImageSize) -> Result<usize> {
        let [frames, rows, columns] = self.grid_thw(original)?;
        Ok(frames * rows * columns / (self.merge_size * self.merge_size))
    }

    /// Resizes, normalises and cuts an image into patches.
    ///
    /// # Errors
    /// [`ProcessorError::AspectRatio`].
    pub(crate) fn process(&self, image: &DecodedImage) -> Result<ProcessedImage> {
        let size = self.target_size(image.size())?;
        Ok(self.patches_of(std::slice::from_ref(image), size))
    }

    /// Cuts a group of frames, resized to `size`, into patches. If there are fewer frames than a
    /// patch has, the last frame is repeated.
    pub(crate) fn patches_of(&self, frames: &[DecodedImage], size: ImageSize) -> ProcessedImage {
        let frames = frames.iter().map(|frame| resize(frame.into(), size));
        let frames: Vec<RgbImage> = frames.collect();
        ProcessedImage::Qwen {
            pixels: self.patchify(&frames, size),
            grid_thw: [
                1,
                size.height / self.patch_size,
                size.width / self.patch_size,
            ],
        }
    }

    pub(crate) fn target_size(&self, original: ImageSize) -> Result<ImageSize> {
        smart_resize(original, self.factor(), self.min_pixels, self.max_pixels)
    }

    /// Returns the side of a token in pixels.
    pub(crate) fn factor(&self) -> usize {
        self.patch_size * self.merge_size
    }

    /// Returns the number of frames of a patch.
    pub(crate) fn temporal_patch_size(&self) -> usize {
        self.temporal_patch_size
    }

    /// Returns the minimum and maximum area.
    pub(crate) fn limits(&self) -> (usize, usize) {
        (self.min_pixels, self.max_pixels)
    }

    /// Reads the config of the video processor. Its patches must have the same shape as those of
    /// the image processor `images`.
    pub(crate) fn from_video_config(config: &ConfigFile, images: &Self) -> Result<Self> {
        config.require_one_of("video_processor_type", &["Qwen3VLVideoProcessor"])?;
        require_bicubic(config)?;
        for (field, expected) in [
            ("patch_size", images.patch_size),
            ("temporal_patch_size", images.temporal_patch_size),
            ("merge_size", images.merge_size),
        ] {
            if config
                .optional_side(field)?
                .is_some_and(|found| found != expected)
            {
                let expected = format!("{expected}, as for images");
                return Err(config.invalid(field, &expected));
            }
        }
        let min_pixels = config.required_size("size.shortest_edge")?;
        let max_pixels = config.required_size("size.longest_edge")?;
        if min_pixels > max_pixels {
            let expected = format!("at least {min_pixels}, the lower limit");
            return Err(config.invalid("size.longest_edge", &expected));
        }
        Ok(Self {
            normalization: Normalization::from_config(config)?,
            min_pixels,
            max_pixels,
            ..images.clone()
        })
    }

    /// Returns `[patches, 3 * frames * patch_size * patch_size]`, with the patches of each token
    /// adjacent.
    fn patchify(&self, frames: &[RgbImage], size: ImageSize) -> PixelValues {
        let (patch, merge) = (self.patch_size, self.merge_size);
        let grid = ImageSize::new(size.height / patch, size.width / patch);
        let row_len = 3 * self.temporal_patch_size * patch * patch;
        let mut data = vec![0.0; grid.area() * row_len];
        let mut rows_out = data.chunks_exact_mut(row_len);
        for token_row in 0..grid.height / merge {
            for token_column in 0..grid.width / merge {
                for row in token_row * merge..(token_row + 1) * merge {
                    for column in token_column * merge..(token_column + 1) * merge {
                        if let Some(out) = rows_out.next() {
                            self.write_patch(frames, row * patch, column * patch, out);
                        }
                    }
                }
            }
        }
        PixelValues {
            data,
            shape: vec![grid.area(), row_len],
        }
    }

    /// Writes one patch in the order channel, frame, row, column; the last of `frames` is repeated
    /// for missing ones.
    fn write_patch(&self, frames: &[RgbImage], top: usize, left: usize, out: &mut [f32]) {
        let patch = self.patch_size;
        let frame_len = patch * patch;
        let channels = out.chunks_exact_mut(self.temporal_patch_size * frame_len);
        for (channel, planes) in channels.enumerate() {
            let table = self.normalization.table(channel);
            let (given, missing) = planes.split_at_mut(frames.len() * frame_len);
            for (image, plane) in frames.iter().zip(given.chunks_exact_mut(frame_len)) {
                for (row, out) in (top..).zip(plane.chunks_exact_mut(patch)) {
                    let start = (row * image.size.width + left) * 3;
                    let pixels = image.data[start..start + 3 * patch].chunks_exact(3);
                    for (value, pixel) in out.iter_mut().zip(pixels) {
                        *value = table[usize::from(pixel[channel])];
                    }
                }
            }
            let last = given.len() - frame_len;
            for plane in missing.chunks_exact_mut(frame_len) {
                plane.copy_from_slice(&given[last..]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resized(height: usize, width: usize) -> (usize, usize) {
        let size =
            smart_resize(ImageSize::new(height, width), 28, 56 * 56, 28 * 28 * 1280).unwrap();
        (size.height, size.width)
    }

    #[test]
    fn halves_round_to_even() {
        assert_eq!(resized(70, 98), (56, 112)); // 2.5 and 3.5 tokens
        assert_eq!(resized(84, 84), (84, 84));
    }

    #[test]
    fn small_images_are_enlarged() {
        assert_eq!(resized(1, 1), (56, 56));
        assert_eq!(resized(1, 200), (28, 812));
    }

    #[test]
    fn limits_can_be_set_one_by_one_but_must_leave_room() {
        let dir = tempfile::tempdir().unwrap();
        let text = r#"{"image_processor_type": "Qwen2VLImageProcessor", "resample": 3,
            "min_pixels": 3136, "max_pixels": 12544, "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5]}"#;
        std::fs::write(dir.path().join("preprocessor_config.json"), text).unwrap();
        let config = ConfigFile::open(dir.path(), "preprocessor_config.json", "").unwrap();
        let processor = QwenImageProcessor::from_config(&config).unwrap();
        let tokens = |min, max| {
            let processor = processor.clone().with_pixels(min, max)?;
            processor.n_tokens(ImageSize::new(280, 280))
        };
        assert_eq!(tokens(None, None).unwrap(), 16);
        assert_eq!(tokens(None, Some(280 * 280)).unwrap(), 100);
        assert_eq!(tokens(Some(560 * 560), Some(600 * 600)).unwrap(), 400);
        assert!(matches!(
            tokens(Some(20_000), None),
            Err(ProcessorError::PixelLimits {
                min: 20_000,
                max: 12_544
            })
        ));
    }

    #[test]
    fn extreme_ratios_are_errors() {
        let just_above = smart_resize(ImageSize::new(100, 20_001), 28, 1, 1000).unwrap_err();
        assert_eq!(
            just_above.to_string(),
            "the image is 20001 x 100 pixels, an aspect ratio of 200.01, the limit is 200"
        );
        let error = smart_resize(ImageSize::new(1, 201), 28, 1, 1000).unwrap_err();
        assert!(matches!(
            error,
            ProcessorError::AspectRatio {
                width: 201,
                height: 1,
                ..
            }
        ));
    }
}
