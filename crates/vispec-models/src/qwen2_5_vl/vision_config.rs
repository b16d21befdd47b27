//! `vision_config` of Qwen2.5-VL.

use std::path::PathBuf;

use serde::Deserialize;

use super::patches::PatchInput;
use crate::config_file::{ConfigFile, MAX_LAYERS, MAX_WIDTH};
use crate::error::ModelError;

/// Largest side of a patch or window, in pixels, that is believed.
const MAX_SIDE: usize = 1 << 12;

/// Shapes of the vision tower.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QwenVisionConfig {
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
    /// Side of an attention window in pixels.
    pub window_size: usize,
    /// Blocks that attend over the whole image instead of one window.
    pub full_attention_blocks: Vec<usize>,
    /// Width of the image tokens, which is that of the text model.
    pub out_hidden: usize,
    path: PathBuf,
}

impl QwenVisionConfig {
    /// Size of an attention head.
    #[must_use]
    pub fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    /// Elements of a patch in all its channels and frames.
    #[must_use]
    pub fn patch_elements(&self) -> usize {
        self.channels * self.temporal_patch_size * self.patch_size * self.patch_size
    }

    /// Patches that become one image token.
    #[must_use]
    pub fn patches_per_token(&self) -> usize {
        self.merge_size * self.merge_size
    }

    /// Side of an attention window in image tokens.
    #[must_use]
    pub fn window_tokens(&self) -> usize {
        self.window_size / self.merge_size / self.patch_size
    }

    /// What the tower reads.
    pub(super) fn patch_input(&self) -> PatchInput<'_> {
        PatchInput {
            config: &self.path,
            model_type: "qwen2_5_vl",
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
    window_size: Option<usize>,
    out_hidden_size: Option<usize>,
    fullatt_block_indexes: Option<Vec<usize>>,
}

impl VisionFields {
    /// Fills in the defaults of transformers 4.51 and checks the values.
    pub(super) fn check(
        self,
        file: &ConfigFile,
        text_hidden: usize,
    ) -> Result<QwenVisionConfig, ModelError> {
        if let Some(activation) = &self.hidden_act {
            file.one_of("vision_config.hidden_act", activation, &["silu"])?;
        }
        let config = QwenVisionConfig {
            depth: self.depth.unwrap_or(32),
            hidden: self.hidden_size.unwrap_or(3584),
            intermediate: self.intermediate_size.unwrap_or(3420),
            heads: self.num_heads.unwrap_or(16),
            channels: self.in_channels.unwrap_or(3),
            patch_size: self.patch_size.unwrap_or(14),
            temporal_patch_size: self.temporal_patch_size.unwrap_or(2),
            merge_size: self.spatial_merge_size.unwrap_or(2),
            window_size: self.window_size.unwrap_or(112),
            full_attention_blocks: self.fullatt_block_indexes.unwrap_or(vec![7, 15, 23, 31]),
            out_hidden: self.out_hidden_size.unwrap_or(3584),
            path: file.path().to_owned(),
        };
        let size =
            |field: &str, value, max| file.size(format!("vision_config.{field}"), value, max);
        size("depth", config.depth, MAX_LAYERS)?;
        size("hidden_size", config.hidden, MAX_WIDTH)?;
        size("intermediate_size", config.intermediate, 4 * MAX_WIDTH)?;
        size("num_heads", config.heads, config.hidden)?;
        size("patch_size", config.patch_size, MAX_SIDE)?;
        size("temporal_patch_size", config.temporal_patch_size, 16)?;
        size("spatial_merge_size", config.merge_size, 16)?;
        size("window_size", config.window_size, MAX_SIDE)?;
        let invalid = |field: &str, found: usize, expected: String| {
            Err(file.invalid(format!("vision_config.{field}"), found, expected))
        };
        if config.channels != 3 {
            return invalid(
                "in_channels",
                config.channels,
                "3, as colour images have".into(),
            );
        }
        // A quarter of a head for each of cosine and sine of each of height and width.
        if !config.hidden.is_multiple_of(4 * config.heads) {
            let expected = format!("a divisor of a quarter of hidden_size, {}", config.hidden);
            return invalid("num_heads", config.heads, expected);
        }
        if config.window_tokens() == 0 {
            let least = config.patch_size * config.merge_size;
            return invalid(
                "window_size",
                config.window_size,
                format!("at least {least}"),
            );
        }
        if config.out_hidden != text_hidden {
            let expected = format!("hidden_size of the text model, {text_hidden}");
            return invalid("out_hidden_size", config.out_hidden, expected);
        }
        Ok(config)
    }
}
