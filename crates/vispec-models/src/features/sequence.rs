//! The features of one sequence.

use std::ops::Range;

use burn::tensor::{DType, Tensor};
use vispec_core::{BoxError, Prompt, TargetModel, TokenId};

use crate::error::ModelError;
use crate::prompt::EncodedPrompt;
use crate::target::VlmTarget;

/// What a target computed for the tokens of a sequence.
#[derive(Debug, Clone)]
pub struct SequenceFeatures {
    /// `[seq]`, with image tokens at their places.
    pub token_ids: Vec<TokenId>,
    /// `[seq, hidden]`: what enters the first layer, image features included.
    pub input_embeds: Tensor<2>,
    /// `[seq, hidden]`: what leaves the final norm.
    pub hidden_states: Tensor<2>,
    /// Positions of each image's tokens, in order.
    pub image_runs: Vec<Range<usize>>,
}

impl SequenceFeatures {
    /// `[seq]`: true where an image feature stands in place of a token's embedding.
    #[must_use]
    pub fn image_mask(&self) -> Vec<bool> {
        let mut mask = vec![false; self.token_ids.len()];
        for run in &self.image_runs {
            mask[run.clone()].fill(true);
        }
        mask
    }

    /// Copies input embeddings and hidden states to the host as f32, each `[seq * hidden]`.
    ///
    /// # Errors
    /// [`ModelError::DeviceRead`] if the device fails.
    pub fn into_host(self) -> Result<(Vec<f32>, Vec<f32>), ModelError> {
        Ok((
            host_values(self.input_embeds, "input embeddings")?,
            host_values(self.hidden_states, "hidden states")?,
        ))
    }
}

/// Reads a sequence that is there already, in one pass.
///
/// # Errors
/// Any error of the target.
pub fn read_features(
    target: &VlmTarget,
    sequence: &EncodedPrompt,
) -> Result<SequenceFeatures, BoxError> {
    let mut cache = target.new_cache()?;
    let output = target.prefill(sequence, &mut cache)?;
    Ok(SequenceFeatures {
        token_ids: sequence.token_ids().to_vec(),
        input_embeds: sequence.embeds().clone(),
        hidden_states: output.features,
        image_runs: sequence.image_runs().to_vec(),
    })
}

/// Copies a tensor to the host as f32.
pub(crate) fn host_values(tensor: Tensor<2>, what: &'static str) -> Result<Vec<f32>, ModelError> {
    let failed = |reason: String| ModelError::DeviceRead { what, reason };
    let data = Tensor::<2>::cast(tensor, DType::F32).try_into_data();
    let data = data.map_err(|error| failed(error.to_string()))?;
    let values = data.as_slice::<f32>();
    Ok(values.map_err(|error| failed(error.to_string()))?.to_vec())
}
