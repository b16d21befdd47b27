//! Samples of which only tokens and images are stored: the target recomputes their states.

use std::sync::Arc;

use ndarray::Array2;
use vispec_core::BoxError;
use vispec_data::capture::{CapturedSample, TokenSample};
use vispec_models::VlmTarget;
use vispec_models::features::{SequenceFeatures, read_features};

use super::images::ImageReader;
use crate::error::TrainError;

/// A target that recomputes the states of samples.
#[derive(Debug)]
pub(super) struct OnlineReader {
    pub(super) target: Arc<VlmTarget>,
    pub(super) images: ImageReader,
    /// States of the residual stream to compute.
    pub(super) states: Vec<usize>,
}

impl OnlineReader {
    /// Computes the embeddings and hidden states of a sample in one pass.
    ///
    /// # Errors
    /// [`TrainError::Recompute`] if an image cannot be read or the target fails.
    pub(super) fn complete(&self, sample: TokenSample) -> Result<CapturedSample, TrainError> {
        let failed = |source: BoxError| TrainError::Recompute {
            id: sample.record.id.clone(),
            origin: sample.record.origin.clone(),
            source,
        };
        let features = self.features(&sample).map_err(failed)?;
        let (seq, hidden) = (features.token_ids.len(), self.target.hidden());
        let image_mask = features.image_mask();
        let features = features.into_host()?;
        let matrix = |values, width| {
            Array2::from_shape_vec([seq, width], values).map_err(|error| failed(error.into()))
        };
        let residual = features.residual_states;
        let residual = residual.map(|values| matrix(values, self.states.len() * hidden));
        let residual_states = residual.transpose()?;
        let input_embeds = matrix(features.input_embeds, hidden)?;
        let hidden_states = matrix(features.hidden_states, hidden)?;
        Ok(CapturedSample {
            id: sample.record.id,
            token_ids: sample.token_ids,
            input_embeds,
            hidden_states,
            residual_states,
            loss_mask: sample.loss_mask,
            image_mask,
        })
    }

    fn features(&self, sample: &TokenSample) -> Result<SequenceFeatures, BoxError> {
        let prepared = self.images.prepare(sample)?;
        let encoded = self.target.encode(&prepared)?;
        read_features(&self.target, &encoded, &self.states)
    }
}
