//! Everything between a conversation with images and the input of a model, for one checkpoint.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use crate::chat_template::{ChatTemplate, GenerationPrompt, MANY_MESSAGES, Rendered};
use crate::config_file::ConfigFile;
use crate::decoded_image::DecodedImage;
use crate::error::{ProcessorError, Result};
use crate::image_processor::ImageProcessor;
use crate::messages::{Content, Messages};
use crate::model_family::ModelFamily;
use crate::pixel_values::ProcessedImage;
use crate::positions::{ImageSpan, Positions, multimodal_positions};
use crate::prompt_layout::PromptLayout;
use crate::special_tokens::{SpecialTokens, eos_token_ids};
use crate::tokenizer::{SequenceTokens, Tokenizer, Wanted};

/// A prompt that a model can read.
#[derive(Debug, Clone, PartialEq)]
pub struct PreparedPrompt {
    /// Token ids, `[seq]`; places of images hold the image token.
    pub token_ids: Vec<u32>,
    /// Positions of each image, in order; as long as the image has features. Runs of different
    /// images may touch.
    pub image_runs: Vec<Range<usize>>,
    /// The images, in the order of their runs.
    pub images: Vec<ProcessedImage>,
    /// Rotary position ids, `[seq]`.
    pub positions: Positions,
    /// Largest position id + 1 - `seq`: what is added to the index of a later token to get its
    /// position id. Zero with sequential positions.
    pub rope_delta: i64,
    /// The text that the chat template gave, with one placeholder per image.
    pub rendered: String,
}

/// A placeholder in rendered text, and the token it becomes.
#[derive(Debug, Clone)]
struct Placeholder {
    token_id: u32,
    text: String,
}

/// Prepares prompts for one checkpoint.
#[derive(Debug)]
pub struct Processor {
    family: ModelFamily,
    tokenizer: Tokenizer,
    chat_template: ChatTemplate,
    image_processor: ImageProcessor,
    bos_token: Option<String>,
    eos_token_ids: BTreeSet<u32>,
    image: Placeholder,
    /// Videos are not supported, so that this must not occur.
    video: Option<Placeholder>,
    context_limit: usize,
}

impl Processor {
    /// Reads what belongs to the inputs of a checkpoint: `config.json`, the settings of the image
    /// processor (`image_processor` in `processor_config.json`, else `preprocessor_config.json`),
    /// `tokenizer.json`, `tokenizer_config.json`, the chat template, and if they exist
    /// `processor_config.json` and `generation_config.json`.
    ///
    /// # Errors
    /// Those of reading the files, naming file and field, and
    /// [`ProcessorError::UnsupportedArchitecture`].
    pub fn from_dir(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let config = ConfigFile::open_model_config(dir)?;
        let family = ModelFamily::from_config(&config)?;
        let image_processor = ImageProcessor::from_dir(dir, family, &config)?;
        let tokenizer = Tokenizer::from_dir(dir)?;
        let image = match placeholder(
            &config,
            &tokenizer,
            &["image_token_id", "image_token_index"],
        )? {
            Some(image) => image,
            None => return Err(config.missing(image_token_field(family))),
        };
        Ok(Self {
            family,
            image_processor,
            chat_template: ChatTemplate::from_dir(dir)?,
            bos_token: SpecialTokens::from_dir(dir)?.bos,
            eos_token_ids: eos_token_ids(dir, &tokenizer)?,
            image,
            video: placeholder(&config, &tokenizer, &["video_token_id"])?,
            context_limit: context_limit(&config, family)?,
            tokenizer,
        })
    }

    /// Changes the largest number of tokens that a prompt may have.
    #[must_use]
    pub fn with_context_limit(mut self, n_tokens: usize) -> Self {
        self.context_limit = n_tokens;
        self
    }

    /// Renders chats with the template in `file` in place of that of the checkpoint.
    ///
    /// # Errors
    /// [`ProcessorError::Io`], [`ProcessorError::FileTooLarge`] or
    /// [`ProcessorError::TemplateSyntax`].
    pub fn with_chat_template(mut self, file: &Path) -> Result<Self> {
        self.chat_template = self.chat_template.replaced_by(file)?;
        Ok(self)
    }

    /// Changes the limits of an image's area in pixels, where given. Only Qwen2.5-VL resizes images
    /// to an area; other families have fixed sizes and stay as they are.
    ///
    /// # Errors
    /// [`ProcessorError::PixelLimits`] if the lower limit is then 0 or above the upper one.
    pub fn with_pixels(mut self, min: Option<usize>, max: Option<usize>) -> Result<Self> {
        self.image_processor = self.image_processor.with_pixels(min, max)?;
        Ok(self)
    }

    /// Family of the model.
    #[must_use]
    pub fn family(&self) -> ModelFamily {
        self.family
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The chat template.
    #[must_use]
    pub fn chat_template(&self) -> &ChatTemplate {
        &self.chat_template
    }

    /// The image processor.
    #[must_use]
    pub fn image_processor(&self) -> &ImageProcessor {
        &self.image_processor
    }

    /// Tokens that end an answer; at least one.
    #[must_use]
    pub fn eos_token_ids(&self) -> &BTreeSet<u32> {
        &self.eos_token_ids
    }

    /// The token that stands for one feature of an image.
    #[must_use]
    pub fn image_token_id(&self) -> u32 {
        self.image.token_id
    }

    /// Largest number of tokens that a prompt may have: `max_position_embeddings` of the config
    /// unless changed.
    #[must_use]
    pub fn context_limit(&self) -> usize {
        self.context_limit
    }

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

    fn prepare_chat(
        &self,
        messages: &Messages,
        images: &[DecodedImage],
        generation: GenerationPrompt,
        wanted: Wanted<'_>,
    ) -> Result<PreparedPrompt> {
        if messages.is_blank() {
            return Err(ProcessorError::EmptyPrompt);
        }
        let with_calls = |content: &Content| matches!(content, Content::Calls { .. });
        let mut said = messages.as_slice().iter();
        let needs_tools =
            !messages.tools().is_empty() || said.any(|message| with_calls(&message.content));
        if needs_tools && !self.chat_template.writes_tool_calls() {
            return Err(ProcessorError::NoTools {
                template: self.chat_template.name().to_owned(),
            });
        }
        let expected = messages.n_images();
        if images.len() != expected {
            return Err(ProcessorError::ImageCount {
                found: images.len(),
                expected,
            });
        }
        let Rendered { text, end } = self.chat_template.render_far(messages, generation);
        // Messages that are too many for the template are told as what they are: too long.
        if end.is_ok() || messages.as_slice().len() > MANY_MESSAGES {
            self.check_length(&text, wanted)?;
        }
        end?;
        let layout = self.lay_out(&text, &self.image_lengths(images)?)?;
        self.finish(layout, images, text)
    }

    /// Tokens that each image takes in the prompt.
    pub(crate) fn image_lengths(&self, images: &[DecodedImage]) -> Result<Vec<usize>> {
        let sizes = images.iter().map(DecodedImage::size);
        sizes
            .map(|size| self.image_processor.n_tokens(size))
            .collect()
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
        let images = images
            .iter()
            .map(|image| self.image_processor.process(image));
        let images = images.collect::<Result<Vec<_>>>()?;
        let (positions, rope_delta) = self.positions(&layout, &images);
        let PromptLayout {
            token_ids,
            image_runs,
        } = layout;
        Ok(PreparedPrompt {
            token_ids,
            image_runs,
            images,
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

    fn positions(&self, layout: &PromptLayout, images: &[ProcessedImage]) -> (Positions, i64) {
        let len = layout.token_ids.len();
        let ImageProcessor::Qwen(processor) = &self.image_processor else {
            return (Positions::sequential(len), 0);
        };
        let merge = processor.merge_size();
        let runs = layout.image_runs.iter().zip(images);
        let spans = runs.filter_map(|(run, image)| match image {
            ProcessedImage::Qwen {
                grid_thw: [frames, rows, columns],
                ..
            } => Some(ImageSpan {
                run: run.clone(),
                token_grid: [*frames, rows / merge, columns / merge],
            }),
            ProcessedImage::Clip { .. } | ProcessedImage::Anyres { .. } => None,
        });
        multimodal_positions(len, &spans.collect::<Vec<_>>())
    }
}

/// Name of the field in files of the version of transformers that the family was published with.
fn image_token_field(family: ModelFamily) -> &'static str {
    match family {
        ModelFamily::Qwen2_5Vl => "image_token_id",
        ModelFamily::Llava | ModelFamily::LlavaNext => "image_token_index",
    }
}

/// The token that the first of `fields` present names.
fn placeholder(
    config: &ConfigFile,
    tokenizer: &Tokenizer,
    fields: &[&'static str],
) -> Result<Option<Placeholder>> {
    for &field in fields {
        let Some(token_id) = config.optional::<u32>(field, "a token id")? else {
            continue;
        };
        return match tokenizer.id_to_token(token_id) {
            Some(text) => Ok(Some(Placeholder { token_id, text })),
            None => Err(ProcessorError::TokenIdNotInVocabulary {
                path: tokenizer.path().to_owned(),
                id: token_id,
                role: field,
            }),
        };
    }
    Ok(None)
}

/// `max_position_embeddings`, of the text model if it has a config of its own, else what
/// transformers uses if it is absent.
fn context_limit(config: &ConfigFile, family: ModelFamily) -> Result<usize> {
    for field in [
        "text_config.max_position_embeddings",
        "max_position_embeddings",
    ] {
        if let Some(limit) = config.optional_size(field)? {
            return Ok(limit);
        }
    }
    let text_model = config.optional::<String>("text_config.model_type", "a name")?;
    Ok(match (family, text_model.as_deref()) {
        (ModelFamily::Qwen2_5Vl, _) => 32_768,
        (_, Some("mistral")) => 131_072,
        (ModelFamily::Llava | ModelFamily::LlavaNext, _) => 2048,
    })
}
