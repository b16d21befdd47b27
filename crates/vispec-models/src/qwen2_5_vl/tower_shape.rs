//! The fields of `vision_config` that all Qwen vision towers share.

use std::path::PathBuf;

use serde::Deserialize;

use super::patches::PatchInput;
use crate::config_file::{ConfigFile, MAX_LAYERS, MAX_WIDTH};
use crate::error::ModelError;

/// Maximum plausible side of a patch or window in pixels.
pub(crate) const MAX_SIDE: usize = 1 << 12;

/// Shapes that all Qwen vision towers have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TowerShape {
    /// Number of blocks.
    pub depth: usize,
    /// Width of the tower.
    pub hidden: usize,
    /// Width inside the feed-forward blocks.
    pub intermediate: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Number of colour channels.
    pub channels: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Number of frames in a patch; a still image is repeated.
    pub temporal_patch_size: usize,
    /// Side of the square of patches that becomes one image token.
    pub merge_size: usize,
    /// Width of the image tokens, which is that of the text model.
    pub out_hidden: usize,
    path: PathBuf,
    model_type: &'static str,
}

/// Defaults of a family for absent fields.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TowerDefaults {
    pub(crate) model_type: &'static str,
    pub(crate) depth: usize,
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    pub(crate) patch_size: usize,
}

/// The fields in the file; each family uses some of them. Files written by transformers omit fields
/// with default values.
#[derive(Debug, Deserialize)]
pub(crate) struct VisionFields {
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
    pub(super) window_size: Option<usize>,
    pub(super) fullatt_block_indexes: Option<Vec<usize>>,
    pub(crate) num_position_embeddings: Option<usize>,
    pub(crate) deepstack_visual_indexes: Option<Vec<usize>>,
}

impl VisionFields {
    /// Returns the shapes that all towers have: fills in defaults and checks the values.
    pub(crate) fn tower(
        &self,
        file: &ConfigFile,
        defaults: TowerDefaults,
        activation: &'static str,
    ) -> Result<TowerShape, ModelError> {
        if let Some(found) = &self.hidden_act {
            file.one_of("vision_config.hidden_act", found, &[activation])?;
        }
        let shape = TowerShape {
            depth: self.depth.unwrap_or(defaults.depth),
            hidden: self.hidden_size.unwrap_or(defaults.hidden),
            intermediate: self.intermediate_size.unwrap_or(defaults.intermediate),
            heads: self.num_heads.unwrap_or(16),
            channels: self.in_channels.unwrap_or(3),
            patch_size: self.patch_size.unwrap_or(defaults.patch_size),
            temporal_patch_size: self.temporal_patch_size.unwrap_or(2),
            merge_size: self.spatial_merge_size.unwrap_or(2),
            out_hidden: self.out_hidden_size.unwrap_or(3584),
            path: file.path().to_owned(),
            model_type: defaults.model_type,
        };
        let size =
            |field: &str, value, max| file.size(format!("vision_config.{field}"), value, max);
        size("depth", shape.depth, MAX_LAYERS)?;
        size("hidden_size", shape.hidden, MAX_WIDTH)?;
        size("intermediate_size", shape.intermediate, 4 * MAX_WIDTH)?;
        size("num_heads", shape.heads, shape.hidden)?;
        size("patch_size", shape.patch_size, MAX_SIDE)?;
        size("temporal_patch_size", shape.temporal_patch_size, 16)?;
        size("spatial_merge_size", shape.merge_size, 16)?;
        if shape.channels != 3 {
            let expected = "3, as colour images have";
            return Err(file.invalid("vision_config.in_channels", shape.channels, expected));
        }
        // Cosine and sine of height and width take a quarter of a head each.
        if !shape.hidden.is_multiple_of(4 * shape.heads) {
            let expected = format!("a divisor of a quarter of hidden_size, {}", shape.hidden);
            return Err(file.invalid("vision_config.num_heads", shape.heads, expected));
        }
        Ok(shape)
    }
}

impl TowerShape {
    /// Returns the size of an attention head.
    pub(crate) fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    /// Returns the number of patches that become one image token.
    pub(crate) fn patches_per_token(&self) -> usize {
        self.merge_size * self.merge_size
    }

    /// Returns the input format of the tower.
    pub(crate) fn patch_input(&self) -> PatchInput<'_> {
        PatchInput {
            config: &self.path,
            model_type: self.model_type,
            kernel: [
                self.channels,
                self.temporal_patch_size,
                self.patch_size,
                self.patch_size,
            ],
            merge_size: self.merge_size,
        }
    }

    /// Checks that image tokens have the width of text tokens.
    pub(crate) fn check_output(
        &self,
        file: &ConfigFile,
        text_hidden: usize,
    ) -> Result<(), ModelError> {
        if self.out_hidden == text_hidden {
            return Ok(());
        }
        let expected = format!("hidden_size of the text model, {text_hidden}");
        Err(file.invalid("vision_config.out_hidden_size", self.out_hidden, expected))
    }
}
