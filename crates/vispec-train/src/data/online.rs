//! Samples of which only tokens and images were stored: the target reads them again.

use std::sync::Arc;

use ndarray::Array2;
use vispec_core::BoxError;
use vispec_data::capture::{CaptureStage, CapturedSample, ImageRecord, TokenSample};
use vispec_models::VlmTarget;
use vispec_models::features::{SequenceFeatures, read_features};
use vispec_processor::{DecodedImage, ImageLimits, Processor};

use crate::error::TrainError;

/// A target that completes samples.
#[derive(Debug)]
pub(super) struct OnlineReader {
    target: Arc<VlmTarget>,
    processor: Processor,
}

impl OnlineReader {
    /// Prepares images as the capture did.
    ///
    /// # Errors
    /// [`TrainError::Model`] if the target's directory has no processor.
    pub(super) fn new(target: Arc<VlmTarget>, stage: &CaptureStage) -> Result<Self, TrainError> {
        let read = || {
            let processor = Processor::from_dir(target.dir())?;
            match stage {
                CaptureStage::TeacherForced { pixels, .. }
                | CaptureStage::Generated { pixels, .. } => match *pixels {
                    Some((min, max)) => processor.with_pixels(Some(min), Some(max)),
                    None => Ok(processor),
                },
            }
        };
        let processor = read().map_err(vispec_models::ModelError::from)?;
        Ok(Self { target, processor })
    }

    /// Computes embeddings and hidden states of a sample in one pass.
    ///
    /// # Errors
    /// [`TrainError::Recompute`] if an image is not there any more, or the target fails.
    pub(super) fn complete(&self, sample: TokenSample) -> Result<CapturedSample, TrainError> {
        let failed = |source: BoxError| TrainError::Recompute {
            id: sample.record.id.clone(),
            origin: sample.record.origin.clone(),
            source,
        };
        let features = self.features(&sample).map_err(failed)?;
        let shape = [features.token_ids.len(), self.target.hidden()];
        let image_mask = features.image_mask();
        let (embeds, hidden) = features.into_host()?;
        let matrix = |values| Array2::from_shape_vec(shape, values).map_err(|e| failed(e.into()));
        let (input_embeds, hidden_states) = (matrix(embeds)?, matrix(hidden)?);
        Ok(CapturedSample {
            id: sample.record.id,
            token_ids: sample.token_ids,
            input_embeds,
            hidden_states,
            loss_mask: sample.loss_mask,
            image_mask,
        })
    }

    fn features(&self, sample: &TokenSample) -> Result<SequenceFeatures, BoxError> {
        let limits = ImageLimits::default();
        let mut stored = sample.image_files.iter();
        let mut images = Vec::with_capacity(sample.record.images.len());
        for record in &sample.record.images {
            images.push(match record {
                ImageRecord::File(path) => DecodedImage::open(path, &limits)?,
                ImageRecord::Stored(_) => {
                    let bytes = stored.next().ok_or("an image file is missing")?;
                    DecodedImage::from_bytes(bytes, &limits)?
                }
            });
        }
        let prepared = self.processor.prepare_tokens(&sample.token_ids, &images)?;
        let encoded = self.target.encode(&prepared)?;
        read_features(&self.target, &encoded)
    }
}
