//! Everything between a conversation with images and videos and the input of a model, for one
//! checkpoint.

mod prepare;
mod videos;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

pub(crate) use self::prepare::sizes_of;
use crate::chat_template::ChatTemplate;
use crate::config_file::ConfigFile;
use crate::error::{ProcessorError, Result};
use crate::image_processor::ImageProcessor;
use crate::model_family::ModelFamily;
use crate::pixel_values::ProcessedImage;
use crate::positions::Positions;
use crate::prompt_layout::{MediaKind, MediaPlaces};
use crate::qwen_video::QwenVideoProcessor;
use crate::special_tokens::{SpecialTokens, eos_token_ids};
use crate::tokenizer::Tokenizer;

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
