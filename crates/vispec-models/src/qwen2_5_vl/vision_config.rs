//! `vision_config` of Qwen2.5-VL.

use super::tower_shape::{MAX_SIDE, TowerDefaults, TowerShape, VisionFields};
use crate::config_file::ConfigFile;
use crate::error::ModelError;

/// Defaults of transformers 4.51.
const DEFAULTS: TowerDefaults = TowerDefaults {
    model_type: "qwen2_5_vl",
    depth: 32,
    hidden: 3584,
    intermediate: 3420,
    patch_size: 14,
};

/// Shapes of the vision tower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QwenVisionConfig {
    /// Blocks, patches and widths.
    pub tower: TowerShape,
    /// Side of an attention window in pixels.
    pub window_size: usize,
    /// Blocks that attend over the whole image instead of one window.
    pub full_attention_blocks: Vec<usize>,
}

impl QwenVisionConfig {
    /// Returns the side of an attention window in image tokens.
    pub(crate) fn window_tokens(&self) -> usize {
        self.window_size / self.tower.merge_size / self.tower.patch_size
    }

    /// Fills in defaults and checks the values.
    pub(super) fn new(
        fields: VisionFields,
        file: &ConfigFile,
        text_hidden: usize,
    ) -> Result<Self, ModelError> {
        const WINDOW: &str = "vision_config.window_size";
        let config = Self {
            tower: fields.tower(file, DEFAULTS, "silu")?,
            window_size: fields.window_size.unwrap_or(112),
            full_attention_blocks: fields.fullatt_block_indexes.unwrap_or(vec![7, 15, 23, 31]),
        };
        file.size(WINDOW, config.window_size, MAX_SIDE)?;
        if config.window_tokens() == 0 {
            let least = config.tower.patch_size * config.tower.merge_size;
            return Err(file.invalid(WINDOW, config.window_size, format!("at least {least}")));
        }
        config.tower.check_output(file, text_hidden)?;
        Ok(config)
    }
}
