//! Encodes a processed image to vectors for the text model: CLIP, projector, packing.

use std::path::PathBuf;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor, TensorData, s};
use vispec_processor::{ImageSize, PixelValues, ProcessedImage, anyres_grid_shape};

use super::clip::ClipVision;
use super::config::{FeatureSelection, LlavaConfig, LlavaFamily};
use super::packing::pack_tiles;
use super::projector::Projector;
use crate::config_file::invalid;
use crate::error::ModelError;
use crate::weights::Weights;

/// Number of tiles to compute together, which bounds the memory of images with many tiles. The
/// published models have at most five.
const TILES_AT_ONCE: usize = 5;

/// Vision tower and projector of LLaVA-1.5 and LLaVA-NeXT.
#[derive(Module, Debug)]
pub struct LlavaVision {
    tower: ClipVision,
    projector: Projector,
    /// Vector that ends each row of the tile grid in LLaVA-NeXT.
    image_newline: Option<Param<Tensor<1>>>,
    #[module(skip)]
    family: LlavaFamily,
    #[module(skip)]
    selection: FeatureSelection,
    #[module(skip)]
    image_size: usize,
    #[module(skip)]
    grid_side: usize,
    #[module(skip)]
    config_path: PathBuf,
    #[module(skip)]
    device: Device,
    #[module(skip)]
    dtype: DType,
}

impl LlavaVision {
    /// Loads `vision_tower`, `multi_modal_projector` and, for LLaVA-NeXT, `image_newline` from
    /// `weights`, the root of the checkpoint.
    #[must_use]
    pub fn load(weights: &Weights<'_>, config: &LlavaConfig) -> Self {
        let hidden = config.decoder().hidden;
        let image_newline = match config.family {
            LlavaFamily::Llava => None,
            LlavaFamily::LlavaNext { .. } => Some(Param::from_tensor(
                weights.vector("image_newline", [hidden]),
            )),
        };
        Self {
            tower: ClipVision::load(
                &weights.at("vision_tower.vision_model"),
                &config.vision,
                config.feature_layers,
            ),
            projector: Projector::load(
                &weights.at("multi_modal_projector"),
                config.vision.hidden,
                hidden,
                config.projector_bias,
            ),
            image_newline,
            family: config.family.clone(),
            selection: config.selection,
            image_size: config.vision.image_size,
            grid_side: config.vision.grid_side(),
            config_path: config.path().to_owned(),
            device: weights.device().clone(),
            dtype: weights.precision().compute,
        }
    }

    /// Encodes one image to `[image_tokens, hidden]`, with the width of the text model.
    ///
    /// # Errors
    /// Returns [`ModelError::ConfigValue`] if the image was not processed as the config requires.
    pub fn encode(&self, image: &ProcessedImage) -> Result<Tensor<2>, ModelError> {
        match (&self.family, &self.image_newline, image) {
            (LlavaFamily::Llava, _, ProcessedImage::Clip { pixels }) => {
                let features = self.project_tiles(self.upload(pixels, &[], 1)?);
                let [_, tokens, hidden] = features.dims();
                Ok(features.reshape([tokens, hidden]))
            }
            (
                LlavaFamily::LlavaNext { resolutions },
                Some(newline),
                ProcessedImage::Anyres {
                    pixels,
                    original_size,
                },
            ) => {
                let grid = self.tile_grid(*original_size, resolutions)?;
                let n_tiles = 1 + grid.area();
                let tiles = self.project_tiles(self.upload(pixels, &[n_tiles], n_tiles)?);
                Ok(pack_tiles(
                    tiles,
                    newline.val(),
                    grid,
                    self.grid_side,
                    *original_size,
                ))
            }
            _ => Err(self.refuse(
                "model_type",
                match self.family {
                    LlavaFamily::Llava => "llava",
                    LlavaFamily::LlavaNext { .. } => "llava_next",
                },
                "that of the model that the image was processed for".into(),
            )),
        }
    }

    /// Returns the projected features of each tile.
    ///
    /// # Shapes
    /// `pixels` `[tiles, 3, image_size, image_size]`, result `[tiles, tokens, hidden]`.
    fn project_tiles(&self, pixels: Tensor<4>) -> Tensor<3> {
        let [n_tiles, _, _, _] = pixels.dims();
        let batches = (0..n_tiles).step_by(TILES_AT_ONCE).map(|start| {
            let end = n_tiles.min(start + TILES_AT_ONCE);
            let states = self
                .tower
                .forward(pixels.clone().slice(s![start..end, .., .., ..]));
            self.projector.forward(match self.selection {
                FeatureSelection::Patches => states.slice(s![.., 1.., ..]),
                FeatureSelection::ClassAndPatches => states,
            })
        });
        Tensor::cat(batches.collect(), 0)
    }

    /// Returns the rows and columns of tiles, without the tile of the whole image.
    fn tile_grid(
        &self,
        original: ImageSize,
        resolutions: &[ImageSize],
    ) -> Result<ImageSize, ModelError> {
        if original.height == 0 || original.width == 0 {
            return Err(ModelError::ImageFeatures {
                found: 0,
                expected: 1,
            });
        }
        anyres_grid_shape(original, resolutions, self.image_size)
            .ok_or_else(|| self.refuse("image_grid_pinpoints", "[]", "at least one size".into()))
    }

    /// Moves pixels of shape `leading` followed by `[3, image_size, image_size]` to the device.
    fn upload(
        &self,
        pixels: &PixelValues,
        leading: &[usize],
        n_tiles: usize,
    ) -> Result<Tensor<4>, ModelError> {
        let side = self.image_size;
        let expected = [leading, &[3, side, side]].concat();
        if pixels.shape != expected || pixels.data.len() != expected.iter().product::<usize>() {
            return Err(self.refuse(
                "vision_config.image_size",
                &side.to_string(),
                format!("one that fits processed pixels of shape {:?}", pixels.shape),
            ));
        }
        let data = TensorData::new(pixels.data.clone(), [n_tiles, 3, side, side]);
        let pixels = Tensor::<4>::from_data(data, (&self.device, DType::F32));
        Ok(Tensor::<4>::cast(pixels, self.dtype))
    }

    fn refuse(&self, field: &str, found: &str, expected: String) -> ModelError {
        invalid(&self.config_path, field, found, expected)
    }
}

#[cfg(test)]
mod tests;
