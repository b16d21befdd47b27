//! The vision tower of Qwen3-VL: attention over whole frames, learned and rotary positions, and
//! features of some blocks in addition to those of the last.

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};
use vispec_processor::ProcessedImage;

use super::position::Corners;
use super::vision_block::{Merger, Normed, VisionBlock};
use super::vision_config::Qwen3VisionConfig;
use crate::error::ModelError;
use crate::image_features::ImageFeatures;
use crate::nn::{Bias, Linear, PatchGroups, RotaryTable};
use crate::qwen2_5_vl::{TokenGrid, rotary_angles};
use crate::weights::Weights;

/// Encodes an image that is cut into patches to several vectors per square of patches.
#[derive(Module, Debug)]
pub(crate) struct Qwen3Vision {
    patch_embed: Linear,
    /// `[side * side, hidden]`
    pos_embed: Param<Tensor<2>>,
    blocks: Vec<VisionBlock>,
    merger: Merger,
    /// One merger for each block whose features are added in the text model.
    deepstack_mergers: Vec<Merger>,
    #[module(skip)]
    config: Qwen3VisionConfig,
    #[module(skip)]
    device: Device,
    #[module(skip)]
    dtype: DType,
}

impl Qwen3Vision {
    /// Loads `patch_embed`, `pos_embed`, `blocks`, `merger` and `deepstack_merger_list` from
    /// `weights`.
    pub(crate) fn load(weights: &Weights<'_>, config: &Qwen3VisionConfig) -> Self {
        let input = config.tower.patch_input();
        let block = |idx: usize| VisionBlock::load(&weights.at(format!("blocks.{idx}")), config);
        let deepstack_merger = |level: usize| {
            let weights = weights.at(format!("deepstack_merger_list.{level}"));
            Merger::load(&weights, config, Normed::Tokens)
        };
        let positions = [config.position_side.pow(2), config.tower.hidden];
        let pos_embed = weights.at("pos_embed").vector("weight", positions);
        Self {
            patch_embed: input.embedding(
                &weights.at("patch_embed.proj"),
                config.tower.hidden,
                Bias::Yes,
            ),
            pos_embed: Param::from_tensor(pos_embed),
            blocks: (0..config.tower.depth).map(block).collect(),
            merger: Merger::load(&weights.at("merger"), config, Normed::Patches),
            deepstack_mergers: (0..config.deepstack_blocks.len())
                .map(deepstack_merger)
                .collect(),
            config: config.clone(),
            device: weights.device().clone(),
            dtype: weights.precision().compute,
        }
    }

    /// Encodes one image to vectors with the width of the text model.
    ///
    /// # Errors
    /// Returns [`ModelError::ConfigValue`] if the image was not processed as the config requires.
    pub(crate) fn encode(&self, image: &ProcessedImage) -> Result<ImageFeatures, ModelError> {
        let input = self.config.tower.patch_input();
        let (pixels, grid) = input.read(image, (&self.device, self.dtype))?;
        let mut x = self.embed(pixels, grid);
        let rotary = self.rotary(grid);
        let mut levels = Vec::with_capacity(self.deepstack_mergers.len());
        for (idx, block) in self.blocks.iter().enumerate() {
            x = block.forward(x, &rotary, self.frames(grid));
            if let Ok(level) = self.config.deepstack_blocks.binary_search(&idx) {
                levels.push(self.deepstack_mergers[level].forward(x.clone()));
            }
        }
        Ok(ImageFeatures {
            tokens: self.merger.forward(x),
            levels,
        })
    }

    /// Embeds patches `[patches, elements]` with their positions; returns `[patches, hidden]`.
    fn embed(&self, pixels: Tensor<2>, grid: TokenGrid) -> Tensor<2> {
        let corners = Corners::new(
            grid,
            self.config.tower.merge_size,
            self.config.position_side,
        );
        let positions = corners.mix(&self.pos_embed.val(), (&self.device, self.dtype));
        self.patch_embed.forward(pixels) + positions
    }

    fn frames(&self, grid: TokenGrid) -> PatchGroups {
        PatchGroups {
            start: 0,
            groups: grid.frames,
            len: grid.rows * grid.columns * self.config.tower.patches_per_token(),
        }
    }

    fn rotary(&self, grid: TokenGrid) -> RotaryTable {
        let head_dim = self.config.tower.head_dim();
        let angles = rotary_angles(grid, self.config.tower.merge_size, head_dim);
        RotaryTable::from_angles(angles.into_iter(), head_dim, (&self.device, self.dtype))
    }
}

#[cfg(test)]
mod tests;
