//! Placement of videos in a prompt.

use std::borrow::Cow;

use super::Processor;
use crate::error::{ProcessorError, Result};
use crate::image_processor::ImageProcessor;
use crate::model_family::ImageForm;
use crate::pixel_values::ProcessedImage;
use crate::qwen_video::{QwenVideoProcessor, VideoPlan};
use crate::video::Video;

impl Processor {
    /// Lays out the tokens of videos.
    pub(super) fn plan_videos(&self, videos: &[&Video]) -> Result<Vec<VideoPlan>> {
        let plans = videos.iter();
        let plans = plans.map(|video| self.video_processor()?.plan(video));
        plans.collect()
    }

    /// Returns whether the model reads videos.
    #[must_use]
    pub fn reads_videos(&self) -> bool {
        self.video_processor().is_ok()
    }

    fn video_processor(&self) -> Result<&QwenVideoProcessor> {
        if let (Some(_), Some(processor)) = (&self.video, &self.video_processor) {
            return Ok(processor);
        }
        let advice = match self.family.images() {
            ImageForm::Patches => ": video_token_id or video_preprocessor_config.json is missing",
            ImageForm::Crop | ImageForm::Tiles => "",
        };
        Err(ProcessorError::VideosUnsupported {
            path: self.config.clone(),
            advice,
        })
    }

    /// Returns the number of parts that a video has in a prompt, each with its own run of tokens.
    ///
    /// # Errors
    /// [`ProcessorError::VideosUnsupported`]; [`ProcessorError::VideoFrames`],
    /// [`ProcessorError::VideoSmall`] and [`ProcessorError::AspectRatio`] for videos that the model
    /// cannot take.
    pub fn n_video_parts(&self, video: &Video) -> Result<usize> {
        Ok(self.video_processor()?.plan(video)?.grids.len())
    }

    /// Processes a video into parts for the vision tower.
    ///
    /// # Errors
    /// Same as [`n_video_parts`](Self::n_video_parts).
    pub fn process_video(&self, video: &Video) -> Result<Vec<ProcessedImage>> {
        self.video_processor()?.process(video)
    }

    /// Replaces each video of several parts in rendered text with the text of its parts.
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

    /// Returns the number of tokens that each part of each video takes in the prompt.
    pub(super) fn video_lengths(&self, plans: &[VideoPlan]) -> Vec<usize> {
        let merged = match &self.image_processor {
            ImageProcessor::Qwen(images) => images.merge_size().pow(2),
            ImageProcessor::Clip { .. } | ImageProcessor::Anyres(_) => 1,
        };
        let grids = plans.iter().flat_map(|plan| &plan.grids);
        let lengths = grids.map(|grid| grid.iter().product::<usize>() / merged);
        lengths.collect()
    }
}
