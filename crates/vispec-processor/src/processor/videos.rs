//! Videos on their way into a prompt.

use std::borrow::Cow;

use super::Processor;
use crate::error::{ProcessorError, Result};
use crate::image_processor::ImageProcessor;
use crate::model_family::ImageForm;
use crate::pixel_values::ProcessedImage;
use crate::qwen_video::VideoPlan;
use crate::video::Video;

impl Processor {
    /// Where the tokens of videos will be.
    pub(super) fn plan_videos(&self, videos: &[Video]) -> Result<Vec<VideoPlan>> {
        if videos.is_empty() {
            return Ok(Vec::new());
        }
        let (Some(_), Some(processor)) = (&self.video, &self.video_processor) else {
            let advice = match self.family.images() {
                ImageForm::Patches => {
                    ": video_token_id or video_preprocessor_config.json is missing"
                }
                ImageForm::Crop | ImageForm::Tiles => "",
            };
            return Err(ProcessorError::VideosUnsupported {
                path: self.config.clone(),
                advice,
            });
        };
        videos.iter().map(|video| processor.plan(video)).collect()
    }

    /// Writes videos that take several parts out in rendered text.
    pub(super) fn write_videos<'t>(
        &self,
        text: &'t str,
        plans: &[VideoPlan],
    ) -> Result<Cow<'t, str>> {
        let (Some(video), Some(processor)) = (&self.video, &self.video_processor) else {
            return Ok(Cow::Borrowed(text));
        };
        let Some(whole) = processor.whole(&video.text).filter(|_| !plans.is_empty()) else {
            return Ok(Cow::Borrowed(text));
        };
        let mut parts = text.split(&whole);
        let mut written = parts.next().unwrap_or_default().to_owned();
        let rest: Vec<&str> = parts.collect();
        if rest.len() != plans.len() {
            return Err(ProcessorError::PlaceholderCount {
                placeholder: whole,
                found: rest.len(),
                expected: plans.len(),
            });
        }
        for (plan, rest) in plans.iter().zip(rest) {
            let groups = plan.text.as_deref().unwrap_or("{}");
            written += &groups.replace("{}", &video.text);
            written += rest;
        }
        Ok(Cow::Owned(written))
    }

    /// Tokens that each part of each video takes in the prompt.
    pub(super) fn video_lengths(&self, plans: &[VideoPlan]) -> Vec<usize> {
        let merged = match &self.image_processor {
            ImageProcessor::Qwen(images) => images.merge_size().pow(2),
            ImageProcessor::Clip { .. } | ImageProcessor::Anyres(_) => 1,
        };
        let grids = plans.iter().flat_map(|plan| &plan.grids);
        let lengths = grids.map(|grid| grid.iter().product::<usize>() / merged);
        lengths.collect()
    }

    /// The parts of videos, in order.
    pub(super) fn process_videos(&self, videos: &[Video]) -> Result<Vec<ProcessedImage>> {
        let mut parts = Vec::new();
        if let Some(processor) = &self.video_processor {
            for video in videos {
                parts.extend(processor.process(video)?);
            }
        }
        Ok(parts)
    }
}
