//! Images of samples, prepared as the capture prepared them.

use std::path::Path;

use ndarray::Array2;
use vispec_core::BoxError;
use vispec_data::capture::{CaptureStage, ImageFeatures, TokenSample};
use vispec_models::{ModelError, TargetVision};
use vispec_processor::{DecodedImage, ImageOptions, PreparedPrompt, Processor};

use crate::error::TrainError;

/// Reads images and places them among the tokens of their sample.
#[derive(Debug)]
pub(super) struct ImageReader {
    processor: Processor,
}

impl ImageReader {
    /// Creates a reader that prepares images as a capture of this stage did.
    ///
    /// # Errors
    /// [`TrainError::Model`] if the target's directory has no processor.
    pub(super) fn new(target_dir: &Path, stage: &CaptureStage) -> Result<Self, TrainError> {
        let read = || {
            let processor = Processor::from_dir(target_dir)?;
            match stage {
                CaptureStage::TeacherForced { pixels, .. }
                | CaptureStage::Generated { pixels, .. } => match *pixels {
                    Some((min, max)) => processor.with_pixels(Some(min), Some(max)),
                    None => Ok(processor),
                },
            }
        };
        let processor = read().map_err(ModelError::from)?;
        Ok(Self { processor })
    }

    /// Returns the target's input for a sample.
    ///
    /// # Errors
    /// If an image is missing, has changed since the capture, or does not fit the tokens.
    pub(super) fn prepare(&self, sample: &TokenSample) -> Result<PreparedPrompt, BoxError> {
        let options = ImageOptions::as_stored();
        let files = sample.images()?;
        let images = files
            .iter()
            .map(|file| DecodedImage::from_bytes(file, &options));
        let images = images.collect::<Result<Vec<_>, _>>()?;
        Ok(self.processor.prepare_tokens(&sample.token_ids, &images)?)
    }
}

/// A vision tower that computes the image features of packed samples.
#[derive(Debug)]
pub(super) struct ImageEncoder {
    pub(super) vision: TargetVision,
    pub(super) images: ImageReader,
}

impl ImageFeatures for ImageEncoder {
    fn features(&self, sample: &TokenSample) -> Result<Array2<f32>, BoxError> {
        let prepared = self.images.prepare(sample)?;
        let mut values = Vec::new();
        for image in &prepared.images {
            values.extend(self.vision.encode_to_host(image)?);
        }
        let tokens = sample.image_mask.iter().filter(|&&is_image| is_image);
        let tokens = tokens.count();
        let hidden = values.len() / tokens.max(1);
        Ok(Array2::from_shape_vec([tokens, hidden], values)?)
    }
}
