//! The dense Qwen3-VL models: config and vision tower. Weight names, patches and the attention over
//! patches are those of Qwen2.5-VL. The text model is shared with other families.

mod config;
mod position;
mod vision;
mod vision_block;
mod vision_config;

use std::path::Path;

pub(crate) use config::Qwen3Config;
pub(crate) use vision::Qwen3Vision;
pub(crate) use vision_config::Qwen3VisionConfig;

use vispec_processor::ProcessedImage;

use crate::error::ModelError;
use crate::family::{FamilySpec, VisionSpec, VisionTower};
use crate::image_features::ImageFeatures;
use crate::nn::MropeLayout;
use crate::text_model::HeadWeights;
use crate::weights::Weights;

/// Returns the model that the config in `dir` describes.
pub(crate) fn family(dir: &Path) -> Result<FamilySpec, ModelError> {
    let config = Qwen3Config::read(dir)?;
    Ok(FamilySpec {
        rules: crate::qwen2_5_vl::RENAME_RULES,
        model: "model",
        head: "lm_head",
        head_weights: HeadWeights::tied_if(config.tie_word_embeddings),
        decoder: config.decoder(),
        vocab_size: config.vocab_size,
        rotary: Some((config.rotary_sections(), MropeLayout::Interleaved)),
        context_len: config.context_len(),
        image_levels: config.vision.deepstack_blocks.len(),
        vision: Box::new(config.vision),
    })
}

impl VisionSpec for Qwen3VisionConfig {
    fn load(&self, weights: &Weights<'_>) -> Box<dyn VisionTower> {
        Box::new(Qwen3Vision::load(&weights.at("visual").unquantized(), self))
    }
}

impl VisionTower for Qwen3Vision {
    fn encode(&self, image: &ProcessedImage) -> Result<ImageFeatures, ModelError> {
        self.encode(image)
    }
}
