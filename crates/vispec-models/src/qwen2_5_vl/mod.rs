//! Qwen2.5-VL: config, weight names and vision tower. The text model is shared with other families.

mod config;
mod patches;
mod tower_shape;
mod vision;
mod vision_block;
mod vision_config;
mod window;

pub use config::QwenConfig;
pub(crate) use patches::{TokenGrid, rotary_angles};
pub use tower_shape::TowerShape;
pub(crate) use tower_shape::{TowerDefaults, VisionFields};
pub use vision::QwenVision;
pub use vision_config::QwenVisionConfig;

use std::path::Path;

use vispec_processor::ProcessedImage;

use crate::error::ModelError;
use crate::family::{FamilySpec, VisionSpec, VisionTower};
use crate::image_features::ImageFeatures;
use crate::nn::MropeLayout;
use crate::text_model::HeadWeights;
use crate::weights::{RenameRule, Weights};

/// Returns the model that the config in `dir` describes.
pub(crate) fn family(dir: &Path) -> Result<FamilySpec, ModelError> {
    let config = QwenConfig::read(dir)?;
    Ok(FamilySpec {
        rules: RENAME_RULES,
        model: "model",
        head: "lm_head",
        head_weights: HeadWeights::tied_if(config.tie_word_embeddings),
        decoder: config.decoder(),
        vocab_size: config.vocab_size,
        rotary: Some((config.rotary_sections(), MropeLayout::Chunked)),
        context_len: config.context_len(),
        image_levels: 0,
        vision: Box::new(config.vision),
    })
}

impl VisionSpec for QwenVisionConfig {
    fn load(&self, weights: &Weights<'_>) -> Box<dyn VisionTower> {
        Box::new(QwenVision::load(&weights.at("visual").unquantized(), self))
    }
}

impl VisionTower for QwenVision {
    fn encode(&self, image: &ProcessedImage) -> Result<ImageFeatures, ModelError> {
        self.encode(image).map(ImageFeatures::from)
    }
}

/// Rules from the names that transformers has written since 4.52 to those of the published
/// checkpoints.
pub const RENAME_RULES: &[RenameRule] = &[
    RenameRule {
        from: "model.visual.",
        to: "visual.",
    },
    RenameRule {
        from: "model.language_model.",
        to: "model.",
    },
];

#[cfg(test)]
pub(crate) mod golden;

#[cfg(test)]
mod tests {
    use super::RENAME_RULES;
    use super::golden::assert_newer_names_load;

    #[test]
    fn names_since_transformers_4_52() {
        let newer = |name: &str| match name.strip_prefix("model.") {
            Some(name) => format!("model.language_model.{name}"),
            None if name.starts_with("visual.") => format!("model.{name}"),
            None => name.to_owned(),
        };
        assert_newer_names_load("qwen-untied", RENAME_RULES, newer);
    }
}
