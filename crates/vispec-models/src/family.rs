//! Description of a model family for loading. Each family's module builds its own value.

use std::fmt::Debug;

use vispec_processor::ProcessedImage;

use crate::error::ModelError;
use crate::image_features::ImageFeatures;
use crate::nn::{DecoderConfig, MropeLayout};
use crate::text_model::HeadWeights;
use crate::weights::{RenameRule, Weights};

/// The model of a checkpoint as described by its config and its family.
pub(crate) struct FamilySpec {
    /// Rules from the names in newer checkpoints to those in the published ones.
    pub(crate) rules: &'static [RenameRule],
    /// Name prefix of the language model's weights.
    pub(crate) model: &'static str,
    /// Name prefix of the output head's weights, if it has its own.
    pub(crate) head: &'static str,
    /// Source of the head's weights.
    pub(crate) head_weights: HeadWeights,
    /// Shapes of the language model.
    pub(crate) decoder: DecoderConfig,
    /// Number of rows of the embedding table.
    pub(crate) vocab_size: usize,
    /// Numbers of rotary frequencies for time, height and width, in models with these three axes.
    pub(crate) rotary: Option<([usize; 3], MropeLayout)>,
    /// Maximum number of positions that the model supports.
    pub(crate) context_len: usize,
    /// Number of layers after which vectors are added to image tokens.
    pub(crate) image_levels: usize,
    /// Config of the vision tower.
    pub(crate) vision: Box<dyn VisionSpec>,
}

/// Config of a vision tower.
pub(crate) trait VisionSpec {
    /// Loads the tower from `weights`, the root of a checkpoint.
    fn load(&self, weights: &Weights<'_>) -> Box<dyn VisionTower>;
}

/// Vision tower and projector of a target.
pub(crate) trait VisionTower: Debug + Send + Sync {
    /// Encodes one image to vectors with the width of the language model.
    ///
    /// # Errors
    /// Returns [`ModelError::ConfigValue`] if the image was not processed as the config requires.
    fn encode(&self, image: &ProcessedImage) -> Result<ImageFeatures, ModelError>;
}
