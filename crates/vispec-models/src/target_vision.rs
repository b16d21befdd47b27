//! The part of a target that turns images into vectors for the language model.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use vispec_processor::{ModelFamily, ProcessedImage};

use crate::error::ModelError;
use crate::features::host_values;
use crate::llava::{LlavaConfig, LlavaVision};
use crate::precision::{DtypeChoice, Precision};
use crate::qwen2_5_vl::{QwenConfig, QwenVision};
use crate::weights::{Checkpoint, Weights};

/// Vision tower and projector of a target.
#[derive(Debug)]
pub(crate) enum VisionTower {
    Qwen(Box<QwenVision>),
    Llava(Box<LlavaVision>),
}

impl VisionTower {
    /// Takes a Qwen tower from `weights`, the root of the checkpoint.
    pub(crate) fn qwen(weights: &Weights<'_>, config: &QwenConfig) -> Self {
        let weights = weights.at("visual").unquantized();
        Self::Qwen(Box::new(QwenVision::load(&weights, &config.vision)))
    }

    /// Takes a LLaVA tower and its projector from `weights`, the root of the checkpoint.
    pub(crate) fn llava(weights: &Weights<'_>, config: &LlavaConfig) -> Self {
        Self::Llava(Box::new(LlavaVision::load(&weights.unquantized(), config)))
    }

    /// Gives `[image_tokens, hidden]`.
    pub(crate) fn encode(&self, image: &ProcessedImage) -> Result<Tensor<2>, ModelError> {
        match self {
            Self::Qwen(tower) => tower.encode(image),
            Self::Llava(tower) => tower.encode(image),
        }
    }
}

/// A target's vision tower without its language model: it computes what the whole target would read
/// for an image.
#[derive(Debug)]
pub struct TargetVision {
    tower: VisionTower,
}

impl TargetVision {
    /// Reads vision tower and projector of the checkpoint in `dir`, and nothing else of it.
    ///
    /// # Errors
    /// Config or weights that are missing or damaged, an architecture that is not supported, an
    /// element type that the device cannot compute in.
    pub fn load(dir: &Path, device: &Device, dtype: DtypeChoice) -> Result<Self, ModelError> {
        match ModelFamily::of_checkpoint(dir)? {
            ModelFamily::Qwen2_5Vl => {
                let config = QwenConfig::read(dir)?;
                let checkpoint = Checkpoint::open(dir, crate::qwen2_5_vl::RENAME_RULES)?;
                Self::from_checkpoint(&checkpoint, (device, dtype), |weights| {
                    VisionTower::qwen(weights, &config)
                })
            }
            ModelFamily::Llava | ModelFamily::LlavaNext => {
                let config = LlavaConfig::read(dir)?;
                let checkpoint = Checkpoint::open(dir, crate::llava::RENAME_RULES)?;
                Self::from_checkpoint(&checkpoint, (device, dtype), |weights| {
                    VisionTower::llava(weights, &config)
                })
            }
        }
    }

    fn from_checkpoint(
        checkpoint: &Checkpoint,
        (device, dtype): (&Device, DtypeChoice),
        tower: impl FnOnce(&Weights<'_>) -> VisionTower,
    ) -> Result<Self, ModelError> {
        let precision = Precision::choose(dtype, checkpoint.main_dtype(), device)?;
        let weights = Weights::new(checkpoint, device, precision);
        let tower = tower(&weights);
        for name in checkpoint.names() {
            weights.skip(name);
        }
        weights.finish()?;
        Ok(Self { tower })
    }

    /// The vectors of one image on the host, `[image_tokens * hidden]`. On the CPU they have the
    /// bits that [`VlmTarget::encode_image`](crate::VlmTarget::encode_image) gives.
    ///
    /// # Errors
    /// [`ModelError::ConfigValue`] if the image was processed for another model,
    /// [`ModelError::DeviceRead`] if the device fails.
    pub fn encode_to_host(&self, image: &ProcessedImage) -> Result<Vec<f32>, ModelError> {
        host_values(self.tower.encode(image)?, "image features")
    }
}
