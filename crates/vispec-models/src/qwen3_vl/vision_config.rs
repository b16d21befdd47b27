//! `vision_config` of Qwen3-VL.

use std::path::PathBuf;

use serde::Deserialize;

use crate::config_file::{ConfigFile, MAX_LAYERS, MAX_WIDTH};
use crate::error::ModelError;
use crate::nn::DecoderConfig;
use crate::qwen2_5_vl::PatchInput;

/// Largest side of a patch, in pixels, that is believed.
const MAX_SIDE: usize = 1 << 12;
/// Largest table of positions that is believed.
const MAX_POSITIONS: usize = 1 << 24;

/// Shapes of the vision tower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qwen3VisionConfig {
    /// Number of blocks.
    pub depth: usize,
    /// Width of the tower.
    pub hidden: usize,
    /// Width inside the feed-forward blocks.
    pub intermediate: usize,
    /// Attention heads.
    pub heads: usize,
    /// Colour channels.
    pub channels: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Frames in a patch; a still image is repeated.
    pub temporal_patch_size: usize,
    /// Side of the square of patches that becomes one image token.
    pub merge_size: usize,
    /// Side of the square table of position embeddings.
    pub position_side: usize,
    /// Blocks whose output is added behind the first layers of the text model, one for each layer.
    pub deepstack_blocks: Vec<usize>,
    /// Width of the image tokens, which is that of the text model.
    pub out_hidden: usize,
    path: PathBuf,
}

impl Qwen3VisionConfig {
    /// Size of an attention head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    /// Patches that become one image token.
    #[must_use]
    pub fn patches_per_token(&self) -> usize {
        self.merge_size * self.merge_size
    }

    /// What the tower reads.
    pub(super) fn patch_input(&self) -> PatchInput<'_> {
        PatchInput {
            config: &self.path,
            model_type: "qwen3_vl",
            kernel: [
                self.channels,
                self.temporal_patch_size,
                self.patch_size,
                self.patch_size,
            ],
            merge_size: self.merge_size,
        }
    }
}

/// The fields in the file. Files that transformers wrote leave out what is at its default.
#[derive(Debug, Deserialize)]
pub(super) struct VisionFields {
    depth: Option<usize>,
    hidden_size: Option<usize>,
    hidden_act: Option<String>,
    intermediate_size: Option<usize>,
    num_heads: Option<usize>,
    in_channels: Option<usize>,
    patch_size: Option<usize>,
    spatial_merge_size: Option<usize>,
    temporal_patch_size: Option<usize>,
    out_hidden_size: Option<usize>,
    num_position_embeddings: Option<usize>,
    deepstack_visual_indexes: Option<Vec<usize>>,
}

impl VisionFields {
    /// Fills in the defaults of transformers 4.57 and checks the values.
    pub(super) fn check(
        self,
        file: &ConfigFile,
        text: &DecoderConfig,
    ) -> Result<Qwen3VisionConfig, ModelError> {
        if let Some(activation) = &self.hidden_act {
            let known = &["gelu_pytorch_tanh"];
            file.one_of("vision_config.hidden_act", activation, known)?;
        }
        let positions = self.num_position_embeddings.unwrap_or(2304);
        let config = Qwen3VisionConfig {
            depth: self.depth.unwrap_or(27),
            hidden: self.hidden_size.unwrap_or(1152),
            intermediate: self.intermediate_size.unwrap_or(4304),
            heads: self.num_heads.unwrap_or(16),
            channels: self.in_channels.unwrap_or(3),
            patch_size: self.patch_size.unwrap_or(16),
            temporal_patch_size: self.temporal_patch_size.unwrap_or(2),
            merge_size: self.spatial_merge_size.unwrap_or(2),
            position_side: positions.isqrt(),
            deepstack_blocks: self.deepstack_visual_indexes.unwrap_or(vec![8, 16, 24]),
            out_hidden: self.out_hidden_size.unwrap_or(3584),
            path: file.path().to_owned(),
        };
        config.check_sizes(file)?;
        let invalid = |field: &str, found: String, expected: String| {
            Err(file.invalid(format!("vision_config.{field}"), found, expected))
        };
        file.size(
            "vision_config.num_position_embeddings",
            positions,
            MAX_POSITIONS,
        )?;
        if config.position_side.pow(2) != positions {
            let expected = "a square number";
            return invalid(
                "num_position_embeddings",
                positions.to_string(),
                expected.to_owned(),
            );
        }
        let blocks = &config.deepstack_blocks;
        let ascends = blocks.is_sorted_by(|a, b| a < b) && blocks.iter().all(|b| *b < config.depth);
        if !ascends || blocks.len() > text.layers {
            return invalid(
                "deepstack_visual_indexes",
                format!("{blocks:?}"),
                format!(
                    "ascending numbers below depth, {}, at most as many as the {} layers of the \
                     text model",
                    config.depth, text.layers
                ),
            );
        }
        if config.out_hidden != text.hidden {
            let expected = format!("hidden_size of the text model, {}", text.hidden);
            return invalid("out_hidden_size", config.out_hidden.to_string(), expected);
        }
        Ok(config)
    }
}

impl Qwen3VisionConfig {
    fn check_sizes(&self, file: &ConfigFile) -> Result<(), ModelError> {
        let size =
            |field: &str, value, max| file.size(format!("vision_config.{field}"), value, max);
        size("depth", self.depth, MAX_LAYERS)?;
        size("hidden_size", self.hidden, MAX_WIDTH)?;
        size("intermediate_size", self.intermediate, 4 * MAX_WIDTH)?;
        size("num_heads", self.heads, self.hidden)?;
        size("patch_size", self.patch_size, MAX_SIDE)?;
        size("temporal_patch_size", self.temporal_patch_size, 16)?;
        size("spatial_merge_size", self.merge_size, 16)?;
        if self.channels != 3 {
            let expected = "3, as colour images have";
            return Err(file.invalid("vision_config.in_channels", self.channels, expected));
        }
        // A quarter of a head for each of cosine and sine of each of height and width.
        if !self.hidden.is_multiple_of(4 * self.heads) {
            let expected = format!("a divisor of a quarter of hidden_size, {}", self.hidden);
            return Err(file.invalid("vision_config.num_heads", self.heads, expected));
        }
        Ok(())
    }
}
