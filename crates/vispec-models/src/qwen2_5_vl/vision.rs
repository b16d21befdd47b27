//! The vision tower of Qwen2.5-VL: window attention, 2-D rotary positions, merging of patches.

use burn::module::Module;
use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation};
use vispec_processor::ProcessedImage;

use super::patches::{TokenGrid, rotary_angles};
use super::vision_block::{NORM_EPS, VisionBlock};
use super::vision_config::QwenVisionConfig;
use super::window::WindowOrder;
use crate::error::ModelError;
use crate::nn::{Bias, Linear, PatchGroups, RmsNorm, RotaryTable};
use crate::weights::Weights;

/// Encodes an image that is cut into patches to one vector per square of patches.
#[derive(Module, Debug)]
pub struct QwenVision {
    patch_embed: Linear,
    blocks: Vec<VisionBlock>,
    merger: Merger,
    #[module(skip)]
    config: QwenVisionConfig,
    #[module(skip)]
    device: Device,
    #[module(skip)]
    dtype: DType,
}

impl QwenVision {
    /// Loads `patch_embed`, `blocks.0`, `blocks.1` … and `merger` from `weights`.
    #[must_use]
    pub fn load(weights: &Weights<'_>, config: &QwenVisionConfig) -> Self {
        let block = |idx: usize| VisionBlock::load(&weights.at(format!("blocks.{idx}")), config);
        Self {
            patch_embed: config.tower.patch_input().embedding(
                &weights.at("patch_embed.proj"),
                config.tower.hidden,
                Bias::No,
            ),
            blocks: (0..config.tower.depth).map(block).collect(),
            merger: Merger::load(&weights.at("merger"), config),
            config: config.clone(),
            device: weights.device().clone(),
            dtype: weights.precision().compute,
        }
    }

    /// Encodes one image to `[image_tokens, hidden]`, with the width of the text model.
    ///
    /// # Errors
    /// Returns [`ModelError::ConfigValue`] if the image was not processed as the config requires.
    pub fn encode(&self, image: &ProcessedImage) -> Result<Tensor<2>, ModelError> {
        let input = self.config.tower.patch_input();
        let (pixels, grid) = input.read(image, (&self.device, self.dtype))?;
        Ok(self.forward(pixels, grid))
    }

    /// # Shapes
    /// `pixels` `[patches, elements]`, result `[image_tokens, hidden]`.
    fn forward(&self, pixels: Tensor<2>, grid: TokenGrid) -> Tensor<2> {
        let order = self.window_order(grid);
        let rotary = self.rotary(grid, &order);
        let embedded = self.patch_embed.forward(pixels);
        let mut x = self.patches_in_window_order(embedded, &order);
        for idx in 0..self.blocks.len() {
            x = self.block(idx, x, &rotary, grid, &order);
        }
        self.tokens_in_processor_order(self.merger.forward(x), &order)
    }

    fn window_order(&self, grid: TokenGrid) -> WindowOrder {
        WindowOrder::new(
            grid,
            self.config.window_tokens(),
            self.config.tower.patches_per_token(),
        )
    }

    /// Runs one block, over windows or over whole frames.
    fn block(
        &self,
        idx: usize,
        x: Tensor<2>,
        rotary: &RotaryTable,
        grid: TokenGrid,
        order: &WindowOrder,
    ) -> Tensor<2> {
        if self.config.full_attention_blocks.contains(&idx) {
            let len = grid.rows * grid.columns * self.config.tower.patches_per_token();
            let frames = PatchGroups {
                start: 0,
                groups: grid.frames,
                len,
            };
            self.blocks[idx].forward(x, rotary, &[frames])
        } else {
            self.blocks[idx].forward(x, rotary, &order.runs)
        }
    }

    /// Returns the rotary table of the patches in window order.
    fn rotary(&self, grid: TokenGrid, order: &WindowOrder) -> RotaryTable {
        let head_dim = self.config.tower.head_dim();
        let angles = rotary_angles(grid, self.config.tower.merge_size, head_dim);
        let per_token = self.config.tower.patches_per_token() * head_dim / 2;
        let ordered = order
            .from_processor
            .iter()
            .flat_map(|&token| &angles[token * per_token..(token + 1) * per_token])
            .copied();
        RotaryTable::from_angles(ordered, head_dim, (&self.device, self.dtype))
    }

    fn patches_in_window_order(&self, x: Tensor<2>, order: &WindowOrder) -> Tensor<2> {
        let [patches, hidden] = x.dims();
        let unit = self.config.tower.patches_per_token();
        let tokens = x.reshape([patches / unit, unit * hidden]);
        self.reordered(tokens, &order.from_processor)
            .reshape([patches, hidden])
    }

    fn tokens_in_processor_order(&self, tokens: Tensor<2>, order: &WindowOrder) -> Tensor<2> {
        self.reordered(tokens, &order.to_processor())
    }

    /// Reorders rows: row `i` of the result is row `origins[i]` of `rows`.
    fn reordered(&self, rows: Tensor<2>, origins: &[usize]) -> Tensor<2> {
        let origins: Vec<i64> = origins
            .iter()
            .map(|&row| i64::try_from(row).unwrap_or(i64::MAX))
            .collect();
        let len = origins.len();
        let origins = TensorData::new(origins, [len]);
        rows.select(0, Tensor::<1, Int>::from_data(origins, &self.device))
    }
}

/// Merges the patches of a token and projects them to the width of the text model.
#[derive(Module, Debug)]
struct Merger {
    ln_q: RmsNorm,
    widen: Linear,
    project: Linear,
}

impl Merger {
    fn load(weights: &Weights<'_>, config: &QwenVisionConfig) -> Self {
        let width = config.tower.hidden * config.tower.patches_per_token();
        Self {
            ln_q: RmsNorm::load(&weights.at("ln_q"), config.tower.hidden, NORM_EPS),
            widen: Linear::load(&weights.at("mlp.0"), width, width, Bias::Yes),
            project: Linear::load(
                &weights.at("mlp.2"),
                width,
                config.tower.out_hidden,
                Bias::Yes,
            ),
        }
    }

    /// # Shapes
    /// `x` `[patches, hidden]`, result `[image_tokens, out_hidden]`.
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let [patches, hidden] = x.dims();
        let width = self.widen.n_outputs();
        let tokens = self
            .ln_q
            .forward(x)
            .reshape([patches * hidden / width, width]);
        self.project
            .forward(activation::gelu(self.widen.forward(tokens)))
    }
}

#[cfg(test)]
mod tests;
