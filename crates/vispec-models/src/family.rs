//! What loading needs to know of a family of models: one value for each, made where the family is.

use std::fmt::Debug;
use std::path::Path;

use vispec_processor::{ModelFamily, ProcessedImage};

use crate::error::ModelError;
use crate::image_features::ImageFeatures;
use crate::nn::{DecoderConfig, MropeLayout};
use crate::text_model::HeadWeights;
use crate::weights::{RenameRule, Weights};
use crate::{llava, qwen2_5_vl, qwen3_vl};

/// A checkpoint's model as its config and its family describe it.
pub(crate) struct FamilySpec {
    /// From names that newer versions write to those of the published checkpoints.
    pub(crate) rules: &'static [RenameRule],
    /// Name of the language model among the weights.
    pub(crate) model: &'static str,
    /// Name of its output head, if it has one of its own.
    pub(crate) head: &'static str,
    /// Where the weights of the head come from.
    pub(crate) head_weights: HeadWeights,
    /// Shapes of the language model.
    pub(crate) decoder: DecoderConfig,
    /// Rows of the embedding table.
    pub(crate) vocab_size: usize,
    /// Frequencies that turn with time, height and width, in models that have the three.
    pub(crate) rotary: Option<([usize; 3], MropeLayout)>,
    /// Positions that the model was made for.
    pub(crate) context_len: usize,
    /// Layers behind which more is added at the places of images.
    pub(crate) image_levels: usize,
    /// What becomes of images.
    pub(crate) vision: Box<dyn VisionSpec>,
}

/// Config of a vision tower.
pub(crate) trait VisionSpec {
    /// Takes the tower from `weights`, the root of a checkpoint.
    fn load(&self, weights: &Weights<'_>) -> Box<dyn VisionTower>;
}

/// Vision tower and projector of a target.
pub(crate) trait VisionTower: Debug + Send + Sync {
    /// The vectors of one image, with the width of the language model.
    ///
    /// # Errors
    /// [`ModelError::ConfigValue`] if the image was not processed as the config asks for.
    fn encode(&self, image: &ProcessedImage) -> Result<ImageFeatures, ModelError>;
}

impl FamilySpec {
    /// Reads the config of the checkpoint in `dir`.
    ///
    /// # Errors
    /// A config that is missing, damaged or impossible; an architecture that is not supported.
    pub(crate) fn read(dir: &Path) -> Result<Self, ModelError> {
        match ModelFamily::of_checkpoint(dir)? {
            ModelFamily::Qwen2_5Vl => qwen2_5_vl::family(dir),
            ModelFamily::Qwen3Vl => qwen3_vl::family(dir),
            ModelFamily::Llava | ModelFamily::LlavaNext => llava::family(dir),
        }
    }
}
