//! Turns messages, images and videos into the prompt of a model.

use std::borrow::Cow;
use std::ops::Range;

use super::{Placeholder, PreparedPrompt, Processor};
use crate::chat_template::{GenerationPrompt, MANY_MESSAGES, Rendered};
use crate::decoded_image::DecodedImage;
use crate::error::{ProcessorError, Result};
use crate::image_processor::ImageProcessor;
use crate::image_size::ImageSize;
use crate::media::Media;
use crate::messages::{Content, Messages};
use crate::positions::{ImageSpan, Positions, multimodal_positions};
use crate::prompt_layout::{MediaKind, PromptLayout};
use crate::qwen_video::VideoPlan;
use crate::tokenizer::{SequenceTokens, Wanted};
use crate::video::Video;

impl Processor {
    /// Renders messages, processes the images and lays out the prompt, ready for generation. Images
    /// fill the image places of the messages in order.
    ///
    /// # Errors
    /// [`ProcessorError::EmptyPrompt`], [`ProcessorError::ImageCount`],
    /// [`ProcessorError::PlaceholderCount`], [`ProcessorError::PromptTooLong`],
    /// [`ProcessorError::TextTooLong`], and the errors of the chat template, the tokenizer and the
    /// image processor. Pixels are processed only if the prompt is otherwise valid.
    pub fn prepare(&self, messages: &Messages, images: &[DecodedImage]) -> Result<PreparedPrompt> {
        self.prepare_with(messages, images, GenerationPrompt::Add)
    }

    /// Like [`Self::prepare`], but for a conversation that may have videos.
    ///
    /// # Errors
    /// Those of [`Self::prepare`]; [`ProcessorError::VideoCount`],
    /// [`ProcessorError::VideosUnsupported`], and [`ProcessorError::VideoFrames`] or
    /// [`ProcessorError::VideoSmall`] for videos that the model cannot take.
    pub fn prepare_media(&self, messages: &Messages, media: Media<'_>) -> Result<PreparedPrompt> {
        self.prepare_chat(messages, media, GenerationPrompt::Add, &|| true)
    }

    /// Like [`Self::prepare`], but can also end after the last message, for example to score an
    /// existing answer.
    ///
    /// # Errors
    /// Those of [`Self::prepare`].
    pub fn prepare_with(
        &self,
        messages: &Messages,
        images: &[DecodedImage],
        generation: GenerationPrompt,
    ) -> Result<PreparedPrompt> {
        self.prepare_chat(messages, images.into(), generation, &|| true)
    }

    /// Like [`Self::prepare_media`], but needs only the sizes of the images, and leaves the pixels
    /// of images and videos out of the prompt.
    ///
    /// Use it if the features of the images are already known. `wanted` is called from time to time
    /// while a long text is checked; if it returns `false`, the work stops.
    ///
    /// # Errors
    /// Those of [`Self::prepare_media`], and [`ProcessorError::Unwanted`].
    pub fn prepare_sizes_while(
        &self,
        messages: &Messages,
        (sizes, videos): (&[ImageSize], &[Cow<'_, Video>]),
        wanted: Wanted<'_>,
    ) -> Result<PreparedPrompt> {
        let videos = videos.iter().map(Cow::as_ref);
        let (layout, plans, text) = self.lay_out_chat(
            messages,
            (sizes, &videos.collect::<Vec<_>>()),
            GenerationPrompt::Add,
            wanted,
        )?;
        self.place(layout, (sizes, &plans), text)
    }

    fn prepare_chat(
        &self,
        messages: &Messages,
        media: Media<'_>,
        generation: GenerationPrompt,
        wanted: Wanted<'_>,
    ) -> Result<PreparedPrompt> {
        let sizes = sizes_of(media.images);
        let videos = Vec::from_iter(media.videos);
        let shown = (&*sizes, &*videos);
        let (layout, plans, text) = self.lay_out_chat(messages, shown, generation, wanted)?;
        self.finish(layout, media, &plans, text)
    }

    /// Renders messages and expands the placeholders of images of these sizes and of videos. Also
    /// returns the plans of the videos and the rendered text.
    fn lay_out_chat(
        &self,
        messages: &Messages,
        (sizes, videos): (&[ImageSize], &[&Video]),
        generation: GenerationPrompt,
        wanted: Wanted<'_>,
    ) -> Result<(PromptLayout, Vec<VideoPlan>, String)> {
        if messages.is_blank() {
            return Err(ProcessorError::EmptyPrompt);
        }
        self.check_tools(messages)?;
        let (found, expected) = (sizes.len(), messages.n_images());
        if found != expected {
            return Err(ProcessorError::ImageCount { found, expected });
        }
        let (found, expected) = (videos.len(), messages.n_videos());
        if found != expected {
            return Err(ProcessorError::VideoCount { found, expected });
        }
        let plans = self.plan_videos(videos)?;
        let Rendered { text, end } = self.chat_template.render_far(messages, generation);
        // If there are too many messages for the template, report that the prompt is too long.
        if end.is_ok() || messages.as_slice().len() > MANY_MESSAGES {
            self.check_length(&text, wanted)?;
        }
        end?;
        let written = self.write_videos(&text, &plans)?;
        let lengths = [self.image_lengths(sizes)?, self.video_lengths(&plans)];
        let layout = self.lay_out(&written, &lengths)?;
        Ok((layout, plans, text))
    }

    /// Checks that the template supports tools and calls if there are any.
    fn check_tools(&self, messages: &Messages) -> Result<()> {
        let with_calls = |content: &Content| matches!(content, Content::Calls { .. });
        let mut said = messages.as_slice().iter();
        let needs_tools =
            !messages.tools().is_empty() || said.any(|message| with_calls(&message.content));
        if needs_tools && !self.chat_template.writes_tool_calls() {
            return Err(ProcessorError::NoTools {
                template: self.chat_template.name().to_owned(),
            });
        }
        Ok(())
    }

    /// Returns the number of tokens that each image of these sizes takes in the prompt.
    pub(crate) fn image_lengths(&self, sizes: &[ImageSize]) -> Result<Vec<usize>> {
        let lengths = sizes
            .iter()
            .map(|&size| self.image_processor.n_tokens(size));
        lengths.collect()
    }

    /// Encodes rendered text to tokens with their byte ranges; each image is one token.
    pub(crate) fn encode_rendered(
        &self,
        rendered: &str,
        [n_images, n_videos]: [usize; 2],
    ) -> Result<Vec<(u32, Range<usize>)>> {
        let check_count = |placeholder: &Placeholder, expected| {
            let found = rendered.matches(&placeholder.text).count();
            if found == expected {
                return Ok(());
            }
            let placeholder = placeholder.text.clone();
            Err(ProcessorError::PlaceholderCount {
                placeholder,
                found,
                expected,
            })
        };
        check_count(&self.image, n_images)?;
        if let Some(video) = &self.video {
            check_count(video, n_videos)?;
        }
        // If the template writes the first token itself, the tokenizer must not add another.
        // Transformers has the same rule.
        let starts_with_bos = self
            .bos_token
            .as_ref()
            .is_some_and(|bos| rendered.starts_with(bos));
        let sequence_tokens = if starts_with_bos {
            SequenceTokens::Omit
        } else {
            SequenceTokens::Add
        };
        self.tokenizer.encode_with_places(rendered, sequence_tokens)
    }

    /// Expands the placeholders of images and video parts to these numbers of tokens.
    pub(crate) fn expand(
        &self,
        unexpanded: &[u32],
        [images, videos]: [&[usize]; 2],
    ) -> Result<PromptLayout> {
        let images = self.image.places(MediaKind::Image, images);
        match &self.video {
            Some(video) => {
                let videos = video.places(MediaKind::Video, videos);
                PromptLayout::expand(unexpanded, &[images, videos])
            }
            None => PromptLayout::expand(unexpanded, &[images]),
        }
    }

    /// Returns the placeholder that the template writes for an image.
    pub(crate) fn image_text(&self) -> &str {
        &self.image.text
    }

    /// Processes images and videos, and computes positions.
    pub(crate) fn finish(
        &self,
        layout: PromptLayout,
        media: Media<'_>,
        plans: &[VideoPlan],
        rendered: String,
    ) -> Result<PreparedPrompt> {
        let sizes = sizes_of(media.images);
        let kinds = layout.kinds.clone();
        let placed = self.place(layout, (&sizes, plans), rendered)?;
        let images = media.images.iter();
        let mut images = images.map(|image| self.image_processor.process(image));
        let videos = media.videos.iter().map(|video| self.process_video(video));
        let videos = videos.collect::<Result<Vec<_>>>()?;
        let mut videos = videos.into_iter().flatten().map(Ok);
        let parts = kinds.iter().map_while(|kind| match kind {
            MediaKind::Image => images.next(),
            MediaKind::Video => videos.next(),
        });
        Ok(PreparedPrompt {
            images: parts.collect::<Result<_>>()?,
            ..placed
        })
    }

    /// Computes positions for images of these sizes and for videos, without their pixels.
    fn place(
        &self,
        layout: PromptLayout,
        shown: (&[ImageSize], &[VideoPlan]),
        rendered: String,
    ) -> Result<PreparedPrompt> {
        let (positions, rope_delta) = self.positions(&layout, shown)?;
        let PromptLayout {
            token_ids,
            image_runs,
            ..
        } = layout;
        Ok(PreparedPrompt {
            token_ids,
            image_runs,
            images: Vec::new(),
            positions,
            rope_delta,
            rendered,
        })
    }

    /// Lays out a text for the model to continue, without a chat template and images.
    ///
    /// # Errors
    /// [`ProcessorError::EmptyPrompt`], [`ProcessorError::PlaceholderCount`] if the text contains a
    /// placeholder, [`ProcessorError::PromptTooLong`], [`ProcessorError::TextTooLong`], and the
    /// errors of the tokenizer.
    pub fn prepare_text(&self, text: &str) -> Result<PreparedPrompt> {
        self.prepare_text_while(text, &|| true)
    }

    /// Like [`Self::prepare_text`], but stops if `wanted` returns `false`.
    ///
    /// # Errors
    /// Those of [`Self::prepare_text`], and [`ProcessorError::Unwanted`].
    pub fn prepare_text_while(&self, text: &str, wanted: Wanted<'_>) -> Result<PreparedPrompt> {
        self.check_length(text, wanted)?;
        let layout = self.lay_out(text, &[Vec::new(), Vec::new()])?;
        self.finish(layout, Media::default(), &[], text.to_owned())
    }

    /// Refuses a text that is far too long before it is tokenised as a whole.
    fn check_length(&self, rendered: &str, wanted: Wanted<'_>) -> Result<()> {
        self.tokenizer
            .check_length(rendered, self.context_limit, wanted)
    }

    /// Encodes rendered text and expands the placeholders of images and video parts to these
    /// numbers of tokens.
    fn lay_out(&self, rendered: &str, lengths: &[Vec<usize>; 2]) -> Result<PromptLayout> {
        let counts = lengths.each_ref().map(Vec::len);
        let unexpanded = self.encode_rendered(rendered, counts)?;
        let unexpanded: Vec<u32> = unexpanded.into_iter().map(|(id, _)| id).collect();
        let layout = self.expand(&unexpanded, lengths.each_ref().map(Vec::as_slice))?;
        match layout.token_ids.len() {
            0 => Err(ProcessorError::EmptyPrompt),
            found if found > self.context_limit => Err(ProcessorError::PromptTooLong {
                found,
                limit: self.context_limit,
            }),
            _ => Ok(layout),
        }
    }

    fn positions(
        &self,
        layout: &PromptLayout,
        (sizes, plans): (&[ImageSize], &[VideoPlan]),
    ) -> Result<(Positions, i64)> {
        let len = layout.token_ids.len();
        let ImageProcessor::Qwen(processor) = &self.image_processor else {
            return Ok((Positions::sequential(len), 0));
        };
        let merge = processor.merge_size();
        let images = sizes.iter().map(|&size| processor.grid_thw(size));
        let mut images = images.map(|grid| Ok((grid?, Vec::new())));
        let mut videos = plans.iter().flat_map(VideoPlan::parts).map(Ok);
        let parts = layout.kinds.iter().map_while(|kind| match kind {
            MediaKind::Image => images.next(),
            MediaKind::Video => videos.next(),
        });
        let parts = parts.collect::<Result<Vec<([usize; 3], Vec<usize>)>>>()?;
        let runs = layout.image_runs.iter().zip(parts);
        let spans = runs.map(
            |(run, ([frames, rows, columns], frame_positions))| ImageSpan {
                run: run.clone(),
                token_grid: [frames, rows / merge, columns / merge],
                frame_positions,
            },
        );
        Ok(multimodal_positions(len, &spans.collect::<Vec<_>>()))
    }
}

/// Returns the sizes of images, in order.
pub(crate) fn sizes_of(images: &[DecodedImage]) -> Vec<ImageSize> {
    images.iter().map(DecodedImage::size).collect()
}
