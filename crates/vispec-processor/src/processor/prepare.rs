//! From messages and images to the prompt of a model.

use std::ops::Range;

use super::{Placeholder, PreparedPrompt, Processor};
use crate::chat_template::{GenerationPrompt, MANY_MESSAGES, Rendered};
use crate::decoded_image::DecodedImage;
use crate::error::{ProcessorError, Result};
use crate::image_processor::ImageProcessor;
use crate::image_size::ImageSize;
use crate::messages::Messages;
use crate::positions::{ImageSpan, Positions, multimodal_positions};
use crate::prompt_layout::PromptLayout;
use crate::tokenizer::{SequenceTokens, Wanted};

impl Processor {
    /// Renders messages, processes the images and lays out the prompt, ready for an answer.
    /// Images fill the places for images in the messages in order.
    ///
    /// # Errors
    /// [`ProcessorError::EmptyPrompt`], [`ProcessorError::ImageCount`],
    /// [`ProcessorError::PlaceholderCount`], [`ProcessorError::PromptTooLong`],
    /// [`ProcessorError::TextTooLong`], and those of the chat template, the tokenizer and the image
    /// processor. Pixels are touched only if the prompt is otherwise in order.
    pub fn prepare(&self, messages: &Messages, images: &[DecodedImage]) -> Result<PreparedPrompt> {
        self.prepare_with(messages, images, GenerationPrompt::Add)
    }

    /// The same as [`Self::prepare`], for as long as `wanted` says so: it is asked now and then
    /// while a long text is looked through.
    ///
    /// # Errors
    /// Those of [`Self::prepare`], and [`ProcessorError::Unwanted`].
    pub fn prepare_while(
        &self,
        messages: &Messages,
        images: &[DecodedImage],
        wanted: Wanted<'_>,
    ) -> Result<PreparedPrompt> {
        self.prepare_chat(messages, images, GenerationPrompt::Add, wanted)
    }

    /// The same as [`Self::prepare`], with the choice to end after the last message, for instance
    /// to score an answer that is already there.
    ///
    /// # Errors
    /// Those of [`Self::prepare`].
    pub fn prepare_with(
        &self,
        messages: &Messages,
        images: &[DecodedImage],
        generation: GenerationPrompt,
    ) -> Result<PreparedPrompt> {
        self.prepare_chat(messages, images, generation, &|| true)
    }

    /// The same as [`Self::prepare_while`] for images of which only the sizes are needed, because
    /// what the model makes of them is known: the prompt holds none.
    ///
    /// # Errors
    /// Those of [`Self::prepare_while`].
    pub fn prepare_sizes_while(
        &self,
        messages: &Messages,
        sizes: &[ImageSize],
        wanted: Wanted<'_>,
    ) -> Result<PreparedPrompt> {
        let (layout, text) = self.lay_out_chat(messages, sizes, GenerationPrompt::Add, wanted)?;
        self.place(layout, sizes, text)
    }

    fn prepare_chat(
        &self,
        messages: &Messages,
        images: &[DecodedImage],
        generation: GenerationPrompt,
        wanted: Wanted<'_>,
    ) -> Result<PreparedPrompt> {
        let sizes = sizes_of(images);
        let (layout, text) = self.lay_out_chat(messages, &sizes, generation, wanted)?;
        self.finish(layout, images, text)
    }

    /// Renders messages and makes room for images of these sizes; gives the text, too.
    fn lay_out_chat(
        &self,
        messages: &Messages,
        sizes: &[ImageSize],
        generation: GenerationPrompt,
        wanted: Wanted<'_>,
    ) -> Result<(PromptLayout, String)> {
        if messages.is_blank() {
            return Err(ProcessorError::EmptyPrompt);
        }
        let expected = messages.n_images();
        if sizes.len() != expected {
            return Err(ProcessorError::ImageCount {
                found: sizes.len(),
                expected,
            });
        }
        let Rendered { text, end } = self.chat_template.render_far(messages, generation);
        // Messages that are too many for the template are told as what they are: too long.
        if end.is_ok() || messages.as_slice().len() > MANY_MESSAGES {
            self.check_length(&text, wanted)?;
        }
        end?;
        let layout = self.lay_out(&text, &self.image_lengths(sizes)?)?;
        Ok((layout, text))
    }

    /// Tokens that images of these sizes take in the prompt.
    pub(crate) fn image_lengths(&self, sizes: &[ImageSize]) -> Result<Vec<usize>> {
        let lengths = sizes
            .iter()
            .map(|&size| self.image_processor.n_tokens(size));
        lengths.collect()
    }

    /// Tokens of rendered text and what each stands for; images have one token.
    pub(crate) fn encode_rendered(
        &self,
        rendered: &str,
        n_images: usize,
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
            check_count(video, 0)?;
        }
        // If the template writes the first token itself, the tokenizer must not add another, which
        // is also the rule of transformers.
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

    /// Makes room for images of these numbers of tokens.
    pub(crate) fn expand(&self, unexpanded: &[u32], lengths: &[usize]) -> Result<PromptLayout> {
        PromptLayout::expand(unexpanded, self.image.token_id, &self.image.text, lengths)
    }

    /// How the template writes an image.
    pub(crate) fn image_text(&self) -> &str {
        &self.image.text
    }

    /// Processes the images and computes positions.
    pub(crate) fn finish(
        &self,
        layout: PromptLayout,
        images: &[DecodedImage],
        rendered: String,
    ) -> Result<PreparedPrompt> {
        let sizes = sizes_of(images);
        let placed = self.place(layout, &sizes, rendered)?;
        let images = images
            .iter()
            .map(|image| self.image_processor.process(image));
        Ok(PreparedPrompt {
            images: images.collect::<Result<_>>()?,
            ..placed
        })
    }

    /// Computes positions for images of these sizes, and leaves the images out.
    fn place(
        &self,
        layout: PromptLayout,
        sizes: &[ImageSize],
        rendered: String,
    ) -> Result<PreparedPrompt> {
        let (positions, rope_delta) = self.positions(&layout, sizes)?;
        let PromptLayout {
            token_ids,
            image_runs,
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

    /// Lays out a text that the model is to continue: no chat template, no images.
    ///
    /// # Errors
    /// [`ProcessorError::EmptyPrompt`], [`ProcessorError::PlaceholderCount`] if the text holds a
    /// placeholder, [`ProcessorError::PromptTooLong`], [`ProcessorError::TextTooLong`], and those of
    /// the tokenizer.
    pub fn prepare_text(&self, text: &str) -> Result<PreparedPrompt> {
        self.prepare_text_while(text, &|| true)
    }

    /// The same as [`Self::prepare_text`], for as long as `wanted` says so.
    ///
    /// # Errors
    /// Those of [`Self::prepare_text`], and [`ProcessorError::Unwanted`].
    pub fn prepare_text_while(&self, text: &str, wanted: Wanted<'_>) -> Result<PreparedPrompt> {
        self.check_length(text, wanted)?;
        let layout = self.lay_out(text, &[])?;
        self.finish(layout, &[], text.to_owned())
    }

    /// Refuses what is too long by far before it is tokenised whole.
    fn check_length(&self, rendered: &str, wanted: Wanted<'_>) -> Result<()> {
        self.tokenizer
            .check_length(rendered, self.context_limit, wanted)
    }

    /// Encodes rendered text and makes room for images of these numbers of tokens.
    fn lay_out(&self, rendered: &str, image_lengths: &[usize]) -> Result<PromptLayout> {
        let unexpanded = self.encode_rendered(rendered, image_lengths.len())?;
        let unexpanded: Vec<u32> = unexpanded.into_iter().map(|(id, _)| id).collect();
        let layout = self.expand(&unexpanded, image_lengths)?;
        match layout.token_ids.len() {
            0 => Err(ProcessorError::EmptyPrompt),
            found if found > self.context_limit => Err(ProcessorError::PromptTooLong {
                found,
                limit: self.context_limit,
            }),
            _ => Ok(layout),
        }
    }

    fn positions(&self, layout: &PromptLayout, sizes: &[ImageSize]) -> Result<(Positions, i64)> {
        let len = layout.token_ids.len();
        let ImageProcessor::Qwen(processor) = &self.image_processor else {
            return Ok((Positions::sequential(len), 0));
        };
        let merge = processor.merge_size();
        let runs = layout.image_runs.iter().zip(sizes);
        let spans = runs.map(|(run, &size)| {
            let [frames, rows, columns] = processor.grid_thw(size)?;
            Ok(ImageSpan {
                run: run.clone(),
                token_grid: [frames, rows / merge, columns / merge],
            })
        });
        let spans = spans.collect::<Result<Vec<_>>>()?;
        Ok(multimodal_positions(len, &spans))
    }
}

/// Sizes of images, in order.
pub(crate) fn sizes_of(images: &[DecodedImage]) -> Vec<ImageSize> {
    images.iter().map(DecodedImage::size).collect()
}
