//! The part of a target that encodes images into vectors for the language model.

use std::path::Path;

use burn::tensor::Device;
use vispec_processor::ProcessedImage;

use crate::error::ModelError;
use crate::families::read_family;
use crate::family::VisionTower;
use crate::features::host_values;
use crate::precision::{DtypeChoice, Precision};
use crate::weights::{Checkpoint, Weights};

/// A target's vision tower without its language model. It encodes images like the whole target.
#[derive(Debug)]
pub struct TargetVision {
    tower: Box<dyn VisionTower>,
}

impl TargetVision {
    /// Reads only vision tower and projector of the checkpoint in `dir`.
    ///
    /// # Errors
    /// Fails if config or weights are missing or damaged, or if the architecture or the element
    /// type is not supported.
    pub fn load(dir: &Path, device: &Device, dtype: DtypeChoice) -> Result<Self, ModelError> {
        let family = read_family(dir)?;
        let checkpoint = Checkpoint::open(dir, family.rules)?;
        let precision = Precision::choose(dtype, checkpoint.main_dtype(), device)?;
        let weights = Weights::new(&checkpoint, device, precision);
        let tower = family.vision.load(&weights);
        for name in checkpoint.names() {
            weights.skip(name);
        }
        weights.finish()?;
        Ok(Self { tower })
    }

    /// Encodes one image to vectors on the host, `[image_tokens * hidden]`. On the CPU they equal,
    /// bit for bit, the tokens of [`VlmTarget::encode_image`](crate::VlmTarget::encode_image).
    ///
    /// # Errors
    /// Returns [`ModelError::ConfigValue`] if the image was processed for another model,
    /// [`ModelError::DeviceRead`] if the device fails.
    pub fn encode_to_host(&self, image: &ProcessedImage) -> Result<Vec<f32>, ModelError> {
        host_values(self.tower.encode(image)?.tokens, "image features")
    }
}
