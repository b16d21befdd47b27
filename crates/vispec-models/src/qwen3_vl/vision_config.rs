//! `vision_config` of Qwen3-VL.

use crate::config_file::ConfigFile;
use crate::error::ModelError;
use crate::nn::DecoderConfig;
use crate::qwen2_5_vl::{TowerDefaults, TowerShape, VisionFields};

/// Maximum plausible size of the position table.
const MAX_POSITIONS: usize = 1 << 24;

/// Defaults of transformers 4.57.
const DEFAULTS: TowerDefaults = TowerDefaults {
    model_type: "qwen3_vl",
    depth: 27,
    hidden: 1152,
    intermediate: 4304,
    patch_size: 16,
};

/// Shapes of the vision tower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Qwen3VisionConfig {
    /// Blocks, patches and widths.
    pub tower: TowerShape,
    /// Side of the square table of position embeddings.
    pub position_side: usize,
    /// Blocks whose outputs are added after the first layers of the text model, one block per
    /// layer.
    pub deepstack_blocks: Vec<usize>,
}

impl Qwen3VisionConfig {
    /// Fills in defaults and checks the values.
    pub(super) fn new(
        fields: VisionFields,
        file: &ConfigFile,
        text: &DecoderConfig,
    ) -> Result<Self, ModelError> {
        const POSITIONS: &str = "vision_config.num_position_embeddings";
        let positions = fields.num_position_embeddings.unwrap_or(2304);
        let config = Self {
            tower: fields.tower(file, DEFAULTS, "gelu_pytorch_tanh")?,
            position_side: positions.isqrt(),
            deepstack_blocks: fields.deepstack_visual_indexes.unwrap_or(vec![8, 16, 24]),
        };
        file.size(POSITIONS, positions, MAX_POSITIONS)?;
        if config.position_side.pow(2) != positions {
            return Err(file.invalid(POSITIONS, positions, "a square number"));
        }
        let (blocks, depth) = (&config.deepstack_blocks, config.tower.depth);
        let ascends = blocks.is_sorted_by(|a, b| a < b) && blocks.iter().all(|b| *b < depth);
        if !ascends || blocks.len() > text.layers {
            let expected = format!(
                "ascending numbers below depth, {depth}, at most as many as the {} layers of the \
                 text model",
                text.layers
            );
            let field = "vision_config.deepstack_visual_indexes";
            return Err(file.invalid(field, format!("{blocks:?}"), expected));
        }
        config.tower.check_output(file, text.hidden)?;
        Ok(config)
    }
}
