//! The features of one sequence.

use std::ops::Range;

use burn::tensor::{DType, Tensor};
use vispec_core::{BoxError, Prompt, TargetModel, TokenId};

use super::spec::FeatureSpec;
use crate::error::ModelError;
use crate::nn::{join_rows, slice_rows};
use crate::prompt::EncodedPrompt;
use crate::target::VlmTarget;
use crate::target_pass::other_features;
use crate::vlm_cache::VlmCache;

/// Inputs and hidden states of a target for the tokens of a sequence.
#[derive(Debug, Clone)]
pub struct SequenceFeatures {
    /// `[seq]`, image placeholders included.
    pub token_ids: Vec<TokenId>,
    /// `[seq, hidden]`: inputs of the first layer, image features included.
    pub input_embeds: Tensor<2>,
    /// `[seq, hidden]`: outputs of the final norm.
    pub hidden_states: Tensor<2>,
    /// `[seq, states * hidden]`: the requested states of the residual stream, concatenated; `None`
    /// if none were requested.
    pub residual_states: Option<Tensor<2>>,
    /// Positions of each image's tokens, in order.
    pub image_runs: Vec<Range<usize>>,
}

/// The vectors of a sequence in host memory, as f32.
#[derive(Debug, Clone, PartialEq)]
pub struct HostFeatures {
    /// `[seq * hidden]`
    pub input_embeds: Vec<f32>,
    /// `[seq * hidden]`
    pub hidden_states: Vec<f32>,
    /// `[seq * states * hidden]`
    pub residual_states: Option<Vec<f32>>,
}

impl SequenceFeatures {
    /// Returns the features of a prompt and its answer from the cache in which it was decoded,
    /// `[prompt + answer - 1, hidden]`. The last position is left out, because the target need not
    /// read its token.
    ///
    /// # Arguments
    /// * `cache` - the cache after the generation. It must record hidden states
    ///   ([`VlmTarget::recording_cache`](crate::VlmTarget::recording_cache)), including that of the
    ///   final norm.
    /// * `residual` - numbers of the additional states of the residual stream.
    ///
    /// # Errors
    /// Returns [`ModelError::UnknownFeatures`] if the cache has the states of fewer rows,
    /// [`ModelError::OtherFeatures`] if it does not have the requested states,
    /// [`ModelError::TokenOutOfRange`] if a token of the answer is not in the vocabulary.
    pub fn of_answer(
        target: &VlmTarget,
        prompt: &EncodedPrompt,
        answer: &[TokenId],
        cache: &VlmCache,
        residual: &[usize],
    ) -> Result<Self, ModelError> {
        let mut token_ids = [prompt.token_ids(), answer].concat();
        token_ids.pop();
        let n_rows = token_ids.len();
        let known = cache.features().len();
        let unknown = ModelError::UnknownFeatures {
            cached: n_rows,
            known,
        };
        let features = match cache.features().rows() {
            // The last token may have been read as well; nothing comes after it.
            Some(rows) if known >= n_rows && n_rows > 0 => slice_rows(&rows, 0..n_rows),
            _ => return Err(unknown),
        };
        let (hidden_states, residual_states) = split(&features, cache.spec(), residual)?;
        let mut embeds = vec![slice_rows(
            prompt.embeds(),
            0..prompt.token_ids().len().min(n_rows),
        )];
        if let [read @ .., _last] = answer
            && !read.is_empty()
        {
            let dtype = target.precision().compute;
            embeds.push(target.text().embedding().forward(read, dtype)?);
        }
        Ok(Self {
            token_ids,
            input_embeds: join_rows(embeds),
            hidden_states,
            residual_states,
            image_runs: prompt.image_runs().to_vec(),
        })
    }

    /// Returns a mask `[seq]` that is `true` where an image feature replaces a token's embedding.
    #[must_use]
    pub fn image_mask(&self) -> Vec<bool> {
        let mut mask = vec![false; self.token_ids.len()];
        for run in &self.image_runs {
            mask[run.clone()].fill(true);
        }
        mask
    }

    /// Copies all vectors to the host.
    ///
    /// # Errors
    /// Returns [`ModelError::DeviceRead`] if the device fails.
    pub fn into_host(self) -> Result<HostFeatures, ModelError> {
        let residual = self.residual_states;
        Ok(HostFeatures {
            input_embeds: host_values(self.input_embeds, "input embeddings")?,
            hidden_states: host_values(self.hidden_states, "hidden states")?,
            residual_states: residual
                .map(|states| host_values(states, "residual states"))
                .transpose()?,
        })
    }
}

/// Reads an existing sequence in one pass.
///
/// # Arguments
/// * `residual` - numbers of the states of the residual stream to return besides the output of the
///   final norm.
///
/// # Errors
/// Returns the errors of the target.
pub fn read_features(
    target: &VlmTarget,
    sequence: &EncodedPrompt,
    residual: &[usize],
) -> Result<SequenceFeatures, BoxError> {
    let wanted = FeatureSpec::last().and(&FeatureSpec::residual(residual));
    let mut cache = target.recording_cache(&wanted)?;
    target.prefill(sequence, &mut cache)?;
    let features = cache.features().rows().ok_or("a sequence has no token")?;
    let (hidden_states, residual_states) = split(&features, cache.spec(), residual)?;
    Ok(SequenceFeatures {
        token_ids: sequence.token_ids().to_vec(),
        input_embeds: sequence.embeds().clone(),
        hidden_states,
        residual_states,
        image_runs: sequence.image_runs().to_vec(),
    })
}

/// Splits `features` `[seq, states * hidden]` into the output of the final norm and the requested
/// states of the residual stream.
fn split(
    features: &Tensor<2>,
    spec: &FeatureSpec,
    residual: &[usize],
) -> Result<(Tensor<2>, Option<Tensor<2>>), ModelError> {
    let take = |wanted: &FeatureSpec| {
        let found = spec.select(features, wanted);
        found.ok_or_else(|| other_features(spec, wanted))
    };
    let residual_states = match residual {
        [] => None,
        numbers => Some(take(&FeatureSpec::residual(numbers))?),
    };
    Ok((take(&FeatureSpec::last())?, residual_states))
}

/// Copies a tensor to the host as f32.
pub(crate) fn host_values(tensor: Tensor<2>, what: &'static str) -> Result<Vec<f32>, ModelError> {
    let failed = |reason: String| ModelError::DeviceRead { what, reason };
    let data = Tensor::<2>::cast(tensor, DType::F32).try_into_data();
    let data = data.map_err(|error| failed(error.to_string()))?;
    let values = data.as_slice::<f32>();
    Ok(values.map_err(|error| failed(error.to_string()))?.to_vec())
}
