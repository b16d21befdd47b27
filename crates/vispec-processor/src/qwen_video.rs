//! Video processors of Qwen2.5-VL and Qwen3-VL.

use std::path::Path;

use crate::config_file::ConfigFile;
use crate::error::{ProcessorError, Result};
use crate::image_size::ImageSize;
use crate::model_family::ModelFamily;
use crate::pixel_values::ProcessedImage;
use crate::qwen_image::{QwenImageProcessor, smart_resize};
use crate::video::Video;

/// The file that describes the video processor of Qwen3-VL.
const VIDEO_CONFIG: &str = "video_preprocessor_config.json";

/// Text before and after a video of Qwen3-VL.
const VISION_START: &str = "<|vision_start|>";
const VISION_END: &str = "<|vision_end|>";

/// Turns videos into the input of a vision tower.
#[derive(Debug, Clone)]
pub(crate) enum QwenVideoProcessor {
    /// Qwen2.5-VL: a video is one block of tokens whose temporal positions encode seconds. Frames
    /// are resized like images.
    Block {
        images: QwenImageProcessor,
        /// Temporal positions per second.
        tokens_per_second: f32,
    },
    /// Qwen3-VL: each group of frames is a separate image that follows its timestamp, written as
    /// text. The area limits apply to all frames together.
    Timed { images: QwenImageProcessor },
}

/// Layout of the tokens of a video, as separate parts of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct VideoPlan {
    /// Groups of frames, rows and columns of patches of each part.
    pub(crate) grids: Vec<[usize; 3]>,
    /// Temporal positions of the groups of a part, relative to its start; empty for still images.
    pub(crate) group_positions: Vec<usize>,
    /// Text that replaces the placeholder of a video with several parts.
    pub(crate) text: Option<String>,
}

impl VideoPlan {
    /// Returns the grid and the temporal positions of the groups of each part.
    pub(crate) fn parts(&self) -> impl Iterator<Item = ([usize; 3], Vec<usize>)> {
        let grids = self.grids.iter();
        grids.map(|&grid| (grid, self.group_positions.clone()))
    }
}

impl QwenVideoProcessor {
    /// Reads the video processor of the checkpoint in `dir`, whose images are processed by
    /// `images`. Returns `None` if there is no config file for it, or if the family does not read
    /// videos.
    pub(crate) fn from_dir(
        dir: &Path,
        family: ModelFamily,
        model_config: &ConfigFile,
        images: &QwenImageProcessor,
    ) -> Result<Option<Self>> {
        match family {
            ModelFamily::Qwen2_5Vl => {}
            ModelFamily::Qwen3Vl => {
                let Some(config) = ConfigFile::open_if_present(dir, VIDEO_CONFIG)? else {
                    return Ok(None);
                };
                let images = QwenImageProcessor::from_video_config(&config, images)?;
                return Ok(Some(Self::Timed { images }));
            }
            ModelFamily::Llava | ModelFamily::LlavaNext => return Ok(None),
        }
        let field = "vision_config.tokens_per_second";
        let expected = "a number above 0";
        let rate = model_config
            .optional::<f32>(field, expected)?
            .unwrap_or(4.0);
        if !(rate > 0.0 && rate.is_finite()) {
            return Err(model_config.invalid(field, expected));
        }
        Ok(Some(Self::Block {
            images: images.clone(),
            tokens_per_second: rate,
        }))
    }

    fn images(&self) -> &QwenImageProcessor {
        match self {
            Self::Block { images, .. } | Self::Timed { images } => images,
        }
    }

    /// Returns the size that the frames are resized to.
    fn target_size(&self, video: &Video) -> Result<ImageSize> {
        match self {
            Self::Block { images, .. } => images.target_size(video.frame_size()),
            Self::Timed { images } => {
                let frames = (video.frames().len(), images.temporal_patch_size());
                video_resize(video.frame_size(), frames, images.factor(), images.limits())
            }
        }
    }

    /// Lays out the tokens of a video from its size, without processing pixels.
    ///
    /// # Errors
    /// [`ProcessorError::AspectRatio`], [`ProcessorError::VideoFrames`],
    /// [`ProcessorError::VideoSmall`].
    pub(crate) fn plan(&self, video: &Video) -> Result<VideoPlan> {
        let size = self.target_size(video)?;
        let images = self.images();
        let [rows, columns] = [size.height, size.width].map(|side| side / images.patch_size());
        let group_len = images.temporal_patch_size();
        let groups = video.frames().len().div_ceil(group_len);
        Ok(match self {
            Self::Block {
                tokens_per_second, ..
            } => {
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "the published model computes positions in f32"
                )]
                let seconds = (group_len as f64 / video.rate()) as f32;
                let position = |group: usize| (group as f32 * seconds * tokens_per_second) as usize;
                VideoPlan {
                    grids: vec![[groups, rows, columns]],
                    group_positions: (0..groups).map(position).collect(),
                    text: None,
                }
            }
            Self::Timed { .. } => VideoPlan {
                grids: vec![[1, rows, columns]; groups],
                group_positions: Vec::new(),
                text: Some(timed_text(&video.group_times(group_len))),
            },
        })
    }

    /// Processes a video into parts for the vision tower.
    ///
    /// # Errors
    /// Same as [`plan`](Self::plan).
    pub(crate) fn process(&self, video: &Video) -> Result<Vec<ProcessedImage>> {
        let size = self.target_size(video)?;
        let images = self.images();
        let groups = video.frames().chunks(images.temporal_patch_size());
        let groups = groups.map(|frames| images.patches_of(frames, size));
        Ok(match self {
            Self::Block { .. } => vec![ProcessedImage::stacked(groups.collect())],
            Self::Timed { .. } => groups.collect(),
        })
    }

    /// Returns the rendered text of a video that is to be written as several parts; `None` if
    /// videos are one block.
    pub(crate) fn whole(&self, placeholder: &str) -> Option<String> {
        match self {
            Self::Block { .. } => None,
            Self::Timed { .. } => Some(format!("{VISION_START}{placeholder}{VISION_END}")),
        }
    }
}

/// Writes the parts of a video, each after its timestamp; `{}` stands for the placeholder.
fn timed_text(times: &[f64]) -> String {
    let parts = times.iter();
    let part = |time: &f64| format!("<{time:.1} seconds>{VISION_START}{{}}{VISION_END}");
    parts.map(part).collect()
}

/// Returns the size that the frames of a video are resized to.
///
/// Both sides are multiples of `factor`. The pixels of all frames, with the number of frames
/// rounded to whole groups, lie between the limits.
fn video_resize(
    original: ImageSize,
    (frames, group): (usize, usize),
    factor: usize,
    (min, max): (usize, usize),
) -> Result<ImageSize> {
    if frames < group {
        return Err(ProcessorError::VideoFrames {
            found: frames,
            min: group,
            max: None,
        });
    }
    if original.height.min(original.width) < factor {
        return Err(ProcessorError::VideoSmall {
            found: original,
            expected: factor,
        });
    }
    // Also rejects extreme aspect ratios.
    let free = smart_resize(original, factor, 1, usize::MAX)?;
    let rounded_frames = (frames as f64 / group as f64).round_ties_even() * group as f64;
    let pixels = rounded_frames * free.area() as f64;
    let all = (frames * original.area()) as f64;
    let multiple = factor as f64;
    Ok(if pixels > max as f64 {
        let shrink = (all / max as f64).sqrt();
        let shrunk = |side: usize| ((side as f64 / shrink / multiple).floor() as usize).max(1);
        ImageSize::new(
            shrunk(original.height) * factor,
            shrunk(original.width) * factor,
        )
    } else if pixels < min as f64 {
        let stretch = (min as f64 / all).sqrt();
        let stretched = |side: usize| (side as f64 * stretch / multiple).ceil() as usize;
        ImageSize::new(
            stretched(original.height) * factor,
            stretched(original.width) * factor,
        )
    } else {
        free
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes recorded from the reference implementation.
    #[test]
    fn sizes_are_those_of_the_reference() {
        let units = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../fixtures/qwen3-vl/units/resize_and_sampling.json");
        let units: serde_json::Value =
            serde_json::from_slice(&std::fs::read(units).unwrap()).unwrap();
        for case in units["video"].as_array().unwrap() {
            let number = |field: &str| case[field].as_u64().unwrap() as usize;
            let found = video_resize(
                ImageSize::new(number("h"), number("w")),
                (number("num_frames"), 2),
                32,
                (number("min_pixels"), number("max_pixels")),
            );
            match &case["result_hw"] {
                serde_json::Value::Null => assert!(found.is_err(), "{case}"),
                expected => {
                    let found = found.unwrap();
                    let found = serde_json::Value::from(vec![found.height, found.width]);
                    assert_eq!(&found, expected, "{case}");
                }
            }
        }
    }

    #[test]
    fn times_have_one_decimal() {
        assert_eq!(
            timed_text(&[0.25, 1.0]),
            "<0.2 seconds><|vision_start|>{}<|vision_end|>\
             <1.0 seconds><|vision_start|>{}<|vision_end|>"
        );
    }
}
