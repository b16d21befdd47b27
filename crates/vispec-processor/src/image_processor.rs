//! The image processor of a checkpoint of any family.

use std::path::Path;

use crate::anyres_image::AnyresImageProcessor;
use crate::clip_image::ClipImageProcessor;
use crate::config_file::ConfigFile;
use crate::decoded_image::DecodedImage;
use crate::error::Result;
use crate::image_size::ImageSize;
use crate::model_family::{ImageForm, ModelFamily};
use crate::pixel_values::ProcessedImage;
use crate::qwen_image::QwenImageProcessor;

/// The file that describes the processor as a whole.
const PROCESSOR_CONFIG: &str = "processor_config.json";
/// The object in it that describes the image processor, written by transformers 5.
const SECTION: &str = "image_processor";
/// The file that describes an image processor in checkpoints of earlier versions.
const PREPROCESSOR_CONFIG: &str = "preprocessor_config.json";

/// Turns images into the input of a vision tower.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ImageProcessor {
    /// Qwen2.5-VL and Qwen3-VL.
    Qwen(QwenImageProcessor),
    /// LLaVA-1.5.
    Clip {
        /// Makes the crop.
        processor: ClipImageProcessor,
        /// Number of tokens of an image, the same for all images.
        n_tokens: usize,
    },
    /// LLaVA-NeXT.
    Anyres(AnyresImageProcessor),
}

impl ImageProcessor {
    /// Reads the image processor of the checkpoint in `dir` and checks that it fits the model's
    /// `config.json`.
    pub(crate) fn from_dir(
        dir: &Path,
        family: ModelFamily,
        model_config: &ConfigFile,
    ) -> Result<Self> {
        let config = open_config(dir)?;
        match family.images() {
            ImageForm::Patches => {
                let processor = QwenImageProcessor::from_config(&config)?;
                let fields = [
                    ("vision_config.patch_size", processor.patch_size()),
                    ("vision_config.spatial_merge_size", processor.merge_size()),
                ];
                for (field, expected) in fields {
                    require_equal(model_config, field, expected, &config)?;
                }
                Ok(Self::Qwen(processor))
            }
            ImageForm::Crop => {
                let tower = ClipTower::from_config(dir, model_config)?;
                let processor = ClipImageProcessor::from_config(&config)?;
                require_equal(model_config, IMAGE_SIZE, processor.side(), &config)?;
                Ok(Self::Clip {
                    processor,
                    n_tokens: tower.n_tokens(),
                })
            }
            ImageForm::Tiles => {
                let tower = ClipTower::from_config(dir, model_config)?;
                if tower.with_class_token {
                    return Err(model_config.invalid(STRATEGY, "default"));
                }
                let processor =
                    AnyresImageProcessor::from_config(&config, model_config, tower.patch_size)?;
                require_equal(model_config, IMAGE_SIZE, processor.tile_side(), &config)?;
                Ok(Self::Anyres(processor))
            }
        }
    }

    /// Sets the limits of an image's area in pixels, where given. Only families that resize to an
    /// area (Qwen) are affected; others have fixed sizes.
    pub(crate) fn with_pixels(self, min: Option<usize>, max: Option<usize>) -> Result<Self> {
        match self {
            Self::Qwen(processor) => processor.with_pixels(min, max).map(Self::Qwen),
            Self::Clip { .. } | Self::Anyres(_) => Ok(self),
        }
    }

    /// Returns the number of tokens that an image of this size takes in the prompt.
    ///
    /// # Errors
    /// [`ProcessorError::AspectRatio`](crate::ProcessorError::AspectRatio), only for Qwen.
    pub fn n_tokens(&self, original: ImageSize) -> Result<usize> {
        match self {
            Self::Qwen(processor) => processor.n_tokens(original),
            Self::Clip { n_tokens, .. } => Ok(*n_tokens),
            Self::Anyres(processor) => Ok(processor.n_tokens(original)),
        }
    }

    /// Processes one image.
    ///
    /// # Errors
    /// [`ProcessorError::AspectRatio`](crate::ProcessorError::AspectRatio), only for Qwen.
    pub fn process(&self, image: &DecodedImage) -> Result<ProcessedImage> {
        match self {
            Self::Qwen(processor) => processor.process(image),
            Self::Clip { processor, .. } => Ok(processor.process(image)),
            Self::Anyres(processor) => Ok(processor.process(image)),
        }
    }
}

/// Opens `image_processor` in `processor_config.json`, else `preprocessor_config.json`. This is the
/// order of transformers 5.
fn open_config(dir: &Path) -> Result<ConfigFile> {
    if let Some(processor) = ConfigFile::open_if_present(dir, PROCESSOR_CONFIG)?
        && let Some(section) = processor.section(SECTION)?
    {
        return Ok(section);
    }
    let advice = "it describes how images are resized and normalised, unless processor_config.json \
                  has image_processor";
    ConfigFile::open(dir, PREPROCESSOR_CONFIG, advice)
}

const IMAGE_SIZE: &str = "vision_config.image_size";
const PATCH_SIZE: &str = "vision_config.patch_size";
const STRATEGY: &str = "vision_feature_select_strategy";

/// The vision tower of a LLaVA model, as described in `config.json`.
struct ClipTower {
    image_size: usize,
    patch_size: usize,
    /// Whether the class token is among the features (strategy `full`).
    with_class_token: bool,
}

impl ClipTower {
    /// Reads the vision tower. As in transformers, the strategy defaults to `default`.
    ///
    /// If there is a `processor_config.json`, its strategy and patch size must agree, and it must
    /// say that the tower adds one token.
    fn from_config(dir: &Path, config: &ConfigFile) -> Result<Self> {
        config.require_one_of("vision_config.model_type", &["clip_vision_model"])?;
        config.require_one_of(STRATEGY, &["default", "full"])?;
        let strategy = config.optional::<String>(STRATEGY, "default or full")?;
        let strategy = strategy.as_deref().unwrap_or("default");
        let image_size = config.required_side(IMAGE_SIZE)?;
        let patch_size = config.required_side(PATCH_SIZE)?;
        if patch_size > image_size {
            let expected = format!("at most {image_size}, the value of {IMAGE_SIZE}");
            return Err(config.invalid(PATCH_SIZE, &expected));
        }
        if let Some(processor) = ConfigFile::open_if_present(dir, PROCESSOR_CONFIG)? {
            processor.require_one_of(STRATEGY, &[strategy])?;
            for (field, expected) in [
                ("patch_size", patch_size),
                ("num_additional_image_tokens", 1),
            ] {
                if processor.value(field).is_some() {
                    require_equal(&processor, field, expected, config)?;
                }
            }
        }
        Ok(Self {
            image_size,
            patch_size,
            with_class_token: strategy == "full",
        })
    }

    fn n_tokens(&self) -> usize {
        let side = self.image_size / self.patch_size;
        side * side + usize::from(self.with_class_token)
    }
}

fn require_equal(
    config: &ConfigFile,
    field: &str,
    expected: usize,
    other: &ConfigFile,
) -> Result<()> {
    if config.required_size(field)? == expected {
        return Ok(());
    }
    Err(config.invalid(
        field,
        &format!("{expected}, as {} says", other.path().display()),
    ))
}
