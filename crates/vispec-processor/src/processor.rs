//! Turns conversations with images and videos into the input of a model, for one checkpoint.

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
    /// Token range of each image and of each part of a video, in order. Its length is the number of
    /// features. Ranges may touch.
    pub image_runs: Vec<Range<usize>>,
    /// The processed images and video parts, in the order of their runs.
    pub images: Vec<ProcessedImage>,
    /// Rotary position ids, `[seq]`.
    pub positions: Positions,
    /// Largest position id + 1 - `seq`: the offset to add to the index of a later token to get its
    /// position id. Zero for sequential positions.
    pub rope_delta: i64,
    /// The text that the chat template wrote, with one placeholder per image.
    pub rendered: String,
}

/// A placeholder in rendered text, and its token.
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
    /// Only for models that read videos.
    video: Option<Placeholder>,
    video_processor: Option<QwenVideoProcessor>,
    /// Path of the model's config, for error messages.
    config: PathBuf,
    context_limit: usize,
}

impl Processor {
    /// Reads the files of a checkpoint that describe its inputs: `config.json`, the settings of the
    /// image processor (`image_processor` in `processor_config.json`, else
    /// `preprocessor_config.json`), `tokenizer.json`, `tokenizer_config.json`, the chat template,
    /// and, if they exist, `processor_config.json` and `generation_config.json`.
    ///
    /// # Errors
    /// Errors from reading the files, which name file and field, and
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

    /// Sets the maximum number of tokens in a prompt.
    #[must_use]
    pub fn with_context_limit(mut self, n_tokens: usize) -> Self {
        self.context_limit = n_tokens;
        self
    }

    /// Renders chats with the template in `file` instead of the template of the checkpoint.
    ///
    /// # Errors
    /// [`ProcessorError::Io`], [`ProcessorError::FileTooLarge`] or
    /// [`ProcessorError::TemplateSyntax`].
    pub fn with_chat_template(mut self, file: &Path) -> Result<Self> {
        self.chat_template = self.chat_template.replaced_by(file)?;
        Ok(self)
    }

    /// Sets the limits of an image's area in pixels, where given. Only Qwen resizes images to an
    /// area; other families have fixed sizes and are not affected.
    ///
    /// # Errors
    /// [`ProcessorError::PixelLimits`] if the lower limit is then 0 or above the upper one.
    pub fn with_pixels(mut self, min: Option<usize>, max: Option<usize>) -> Result<Self> {
        self.image_processor = self.image_processor.with_pixels(min, max)?;
        if let (Some(QwenVideoProcessor::Block { images, .. }), ImageProcessor::Qwen(changed)) =
            (&mut self.video_processor, &self.image_processor)
        {
            // Its frames are resized like images.
            images.clone_from(changed);
        }
        Ok(self)
    }

    /// Returns the family of the model.
    #[must_use]
    pub fn family(&self) -> ModelFamily {
        self.family
    }

    /// Returns the tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Returns the chat template.
    #[must_use]
    pub fn chat_template(&self) -> &ChatTemplate {
        &self.chat_template
    }

    /// Returns the image processor.
    #[must_use]
    pub fn image_processor(&self) -> &ImageProcessor {
        &self.image_processor
    }

    /// Returns the tokens that end an answer, at least one.
    #[must_use]
    pub fn eos_token_ids(&self) -> &BTreeSet<u32> {
        &self.eos_token_ids
    }

    /// Returns the token that stands for one feature of an image.
    #[must_use]
    pub fn image_token_id(&self) -> u32 {
        self.image.token_id
    }

    /// Returns the maximum number of tokens in a prompt: `max_position_embeddings` of the config
    /// unless it was changed.
    #[must_use]
    pub fn context_limit(&self) -> usize {
        self.context_limit
    }
}

/// Reads the placeholder token from the first of `fields` that is present.
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

/// Reads `max_position_embeddings`, from the config of the text model if there is one, else from
/// the top level. If it is absent, returns the default of transformers.
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
