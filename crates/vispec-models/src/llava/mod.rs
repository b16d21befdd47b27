//! LLaVA-1.5 and LLaVA-NeXT: config, weight names, vision tower, projector and packing of tiles.
//! The text model is shared with other families.

mod clip;
mod clip_config;
mod config;
mod packing;
mod projector;
mod text_config;
mod vision;

pub use clip_config::{ClipActivation, ClipConfig};
pub use config::{FeatureSelection, LlavaConfig, LlavaFamily};
pub use vision::LlavaVision;

use std::path::Path;

use vispec_processor::ProcessedImage;

use crate::error::ModelError;
use crate::family::{FamilySpec, VisionSpec, VisionTower};
use crate::image_features::ImageFeatures;
use crate::text_model::HeadWeights;
use crate::weights::{RenameRule, Weights};

/// Returns the model that the config in `dir` describes.
pub(crate) fn family(dir: &Path) -> Result<FamilySpec, ModelError> {
    let config = LlavaConfig::read(dir)?;
    Ok(FamilySpec {
        rules: RENAME_RULES,
        model: "language_model.model",
        head: "language_model.lm_head",
        head_weights: HeadWeights::tied_if(config.tie_word_embeddings()),
        decoder: config.decoder(),
        vocab_size: config.vocab_size(),
        rotary: None,
        context_len: config.context_len(),
        image_levels: 0,
        vision: Box::new(config),
    })
}

impl VisionSpec for LlavaConfig {
    fn load(&self, weights: &Weights<'_>) -> Box<dyn VisionTower> {
        Box::new(LlavaVision::load(&weights.unquantized(), self))
    }
}

impl VisionTower for LlavaVision {
    fn encode(&self, image: &ProcessedImage) -> Result<ImageFeatures, ModelError> {
        self.encode(image).map(ImageFeatures::from)
    }
}

/// Rules from the names that transformers has written since 4.52 to those of the published
/// checkpoints.
pub(crate) const RENAME_RULES: &[RenameRule] = &[
    RenameRule {
        from: "model.language_model.",
        to: "language_model.model.",
    },
    RenameRule {
        from: "lm_head.",
        to: "language_model.lm_head.",
    },
    RenameRule {
        from: "model.vision_tower.vision_model.",
        to: "vision_tower.vision_model.",
    },
    // Since 5.0, the names of the tower have one level less.
    RenameRule {
        from: "model.vision_tower.",
        to: "vision_tower.vision_model.",
    },
    RenameRule {
        from: "model.multi_modal_projector.",
        to: "multi_modal_projector.",
    },
    RenameRule {
        from: "model.image_newline",
        to: "image_newline",
    },
];

#[cfg(test)]
mod tests {
    use super::RENAME_RULES;
    use crate::qwen2_5_vl::golden::assert_newer_names_load;

    #[test]
    fn names_since_transformers_4_52() {
        let newer = |name: &str| match name.strip_prefix("language_model.") {
            Some(name) if name.starts_with("lm_head.") => name.to_owned(),
            Some(name) => {
                format!("model.language_model.{}", name.trim_start_matches("model."))
            }
            None => format!("model.{name}"),
        };
        assert_newer_names_load("llava-next", RENAME_RULES, newer);
    }
}
