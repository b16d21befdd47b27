//! Everything between a conversation with images and videos and the input of a model, for one
//! checkpoint.

mod videos;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::chat_template::{ChatTemplate, GenerationPrompt, MANY_MESSAGES, Rendered};
use crate::config_file::ConfigFile;
use crate::decoded_image::DecodedImage;
use crate::error::{ProcessorError, Result};
use crate::image_processor::ImageProcessor;
use crate::media::Media;
use crate::messages::Messages;
use crate::model_family::ModelFamily;
use crate::pixel_values::ProcessedImage;
use crate::positions::{ImageSpan, Positions, multimodal_positions};
use crate::prompt_layout::{MediaKind, MediaPlaces, PromptLayout};
use crate::qwen_video::QwenVideoProcessor;
use crate::special_tokens::{SpecialTokens, eos_token_ids};
use crate::tokenizer::{SequenceTokens, Tokenizer, Wanted};

/// A prompt that a model can read.
#[derive(Debug, Clone, PartialEq)]
pub struct PreparedPrompt {
    /// Token ids, `[seq]`; places of images hold the image token.
    pub token_ids: Vec<u32>,
    /// Positions of each image and of each part of a video, in order; as long as it has features.
    /// Runs may touch.
    pub image_runs: Vec<Range<usize>>,
    /// The images and parts of videos, in the order of their runs.
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

impl Placeholder {
    fn places<'a>(&'a self, kind: MediaKind, lengths: &'a [usize]) -> MediaPlaces<'a> {
        MediaPlaces {
            kind,
            token_id: self.token_id,
            placeholder: &self.text,
            lengths,
        }
    }
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
    /// In models that read videos.
    video: Option<Placeholder>,
    video_processor: Option<QwenVideoProcessor>,
    /// The model's config, for errors.
    config: PathBuf,
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
        let video_processor = match &image_processor {
            ImageProcessor::Qwen(images) => {
                QwenVideoProcessor::from_dir(dir, family, &config, images)?
            }
            ImageProcessor::Clip { .. } | ImageProcessor::Anyres(_) => None,
        };
        let tokenizer = Tokenizer::from_dir(dir)?;
        let image = match placeholder(
            &config,
            &tokenizer,
            &["image_token_id", "image_token_index"],
        )? {
            Some(image) => image,
            None => return Err(config.missing(family.image_token_field())),
        };
        Ok(Self {
            family,
            image_processor,
            chat_template: ChatTemplate::from_dir(dir)?,
            bos_token: SpecialTokens::from_dir(dir)?.bos,
            eos_token_ids: eos_token_ids(dir, &tokenizer)?,
            image,
            video: placeholder(&config, &tokenizer, &["video_token_id"])?,
            video_processor,
            config: config.path().to_owned(),
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

    /// Changes the limits of an image's area in pixels, where given. Only Qwen resizes images
    /// to an area; other families have fixed sizes and stay as they are.
    ///
    /// # Errors
    /// [`ProcessorError::PixelLimits`] if the lower limit is then 0 or above the upper one.
    pub fn with_pixels(mut self, min: Option<usize>, max: Option<usize>) -> Result<Self> {
        self.image_processor = self.image_processor.with_pixels(min, max)?;
        if let (Some(QwenVideoProcessor::Block { images, .. }), ImageProcessor::Qwen(changed)) =
            (&mut self.video_processor, &self.image_processor)
        {
            // Its frames are resized as images are.
            images.clone_from(changed);
        }
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
        self.prepare_chat(messages, images.into(), GenerationPrompt::Add, wanted)
    }

    /// The same as [`Self::prepare`] for a conversation with videos.
    ///
    /// # Errors
    /// Those of [`Self::prepare`]; [`ProcessorError::VideoCount`],
    /// [`ProcessorError::VideosUnsupported`], and [`ProcessorError::VideoFrames`] or
    /// [`ProcessorError::VideoSmall`] for videos that the model cannot take.
    pub fn prepare_media(&self, messages: &Messages, media: Media<'_>) -> Result<PreparedPrompt> {
        self.prepare_chat(messages, media, GenerationPrompt::Add, &|| true)
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
        self.prepare_chat(messages, images.into(), generation, &|| true)
    }

    fn prepare_chat(
        &self,
        messages: &Messages,
        media: Media<'_>,
        generation: GenerationPrompt,
        wanted: Wanted<'_>,
    ) -> Result<PreparedPrompt> {
        if messages.is_blank() {
            return Err(ProcessorError::EmptyPrompt);
        }
        let (found, expected) = (media.images.len(), messages.n_images());
        if found != expected {
            return Err(ProcessorError::ImageCount { found, expected });
        }
        let (found, expected) = (media.videos.len(), messages.n_videos());
        if found != expected {
            return Err(ProcessorError::VideoCount { found, expected });
        }
        let plans = self.plan_videos(media.videos)?;
        let Rendered { text, end } = self.chat_template.render_far(messages, generation);
        // Messages that are too many for the template are told as what they are: too long.
        if end.is_ok() || messages.as_slice().len() > MANY_MESSAGES {
            self.check_length(&text, wanted)?;
        }
        end?;
        let written = self.write_videos(&text, &plans)?;
        let lengths = [
            self.image_lengths(media.images)?,
            self.video_lengths(&plans),
        ];
        let layout = self.lay_out(&written, &lengths)?;
        self.finish(layout, media, text)
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

    /// Makes room for images and parts of videos of these numbers of tokens.
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

    /// How the template writes an image.
    pub(crate) fn image_text(&self) -> &str {
        &self.image.text
    }

    /// Processes images and videos, and computes positions.
    pub(crate) fn finish(
        &self,
        layout: PromptLayout,
        media: Media<'_>,
        rendered: String,
    ) -> Result<PreparedPrompt> {
        let images = media.images.iter();
        let mut images = images.map(|image| Ok((self.image_processor.process(image)?, Vec::new())));
        let mut videos = self.process_videos(media.videos)?.into_iter().map(Ok);
        let parts = layout.kinds.iter().map_while(|kind| match kind {
            MediaKind::Image => images.next(),
            MediaKind::Video => videos.next(),
        });
        let parts = parts.collect::<Result<Vec<(ProcessedImage, Vec<usize>)>>>()?;
        let (positions, rope_delta) = self.positions(&layout, &parts);
        let images = parts.into_iter().map(|(image, _)| image).collect();
        let PromptLayout {
            token_ids,
            image_runs,
            ..
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
        let layout = self.lay_out(text, &[Vec::new(), Vec::new()])?;
        self.finish(layout, Media::default(), text.to_owned())
    }

    /// Refuses what is too long by far before it is tokenised whole.
    fn check_length(&self, rendered: &str, wanted: Wanted<'_>) -> Result<()> {
        self.tokenizer
            .check_length(rendered, self.context_limit, wanted)
    }

    /// Encodes rendered text and makes room for images and parts of videos of these numbers of
    /// tokens.
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
        parts: &[(ProcessedImage, Vec<usize>)],
    ) -> (Positions, i64) {
        let len = layout.token_ids.len();
        let ImageProcessor::Qwen(processor) = &self.image_processor else {
            return (Positions::sequential(len), 0);
        };
        let merge = processor.merge_size();
        let runs = layout.image_runs.iter().zip(parts);
        let spans = runs.filter_map(|(run, (image, frame_positions))| match image {
            ProcessedImage::Qwen {
                grid_thw: [frames, rows, columns],
                ..
            } => Some(ImageSpan {
                run: run.clone(),
                token_grid: [*frames, rows / merge, columns / merge],
                frame_positions: frame_positions.clone(),
            }),
            ProcessedImage::Clip { .. } | ProcessedImage::Anyres { .. } => None,
        });
        multimodal_positions(len, &spans.collect::<Vec<_>>())
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
    Ok(match text_model.as_deref() {
        Some("mistral") => 131_072,
        _ => family.context_limit(),
    })
}
