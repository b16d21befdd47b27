//! Shifts and masks samples, and refuses those that cannot be trained on.

use std::fmt;
use std::sync::Arc;

use ndarray::{Array2, s};
use serde::{Deserialize, Serialize};
use vispec_data::capture::CapturedSample;

use super::noise::Noise;
use super::vocabulary::DraftVocabulary;
use crate::error::TrainError;

/// How a sample's loss mask is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossMask {
    /// Position `s` is supervised if the mask is set at `s`: stage 1 and Medusa.
    AsStored,
    /// Position `s` is supervised if the mask is set at `s + 1`: stage 2 and EAGLE-3.
    ShiftedByOne,
}

/// The features of the target that a draft reads at each position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Features {
    /// The last hidden state.
    HiddenState,
    /// This many states of the residual stream.
    ResidualStates(usize),
}

/// How samples are prepared.
#[derive(Debug, Clone, PartialEq)]
pub struct PrepareOptions {
    /// Maximum number of tokens per sample; longer samples are truncated.
    pub max_len: usize,
    /// How loss masks are read.
    pub loss_mask: LossMask,
    /// Features of the target that the draft reads.
    pub features: Features,
    /// Tokens that losses compare; `None` for all.
    pub vocabulary: Option<Arc<DraftVocabulary>>,
    /// Noise to add to the features, if any.
    pub noise: Option<Noise>,
    /// Whether the draft reads the hidden states of all image tokens.
    pub reads_image_states: bool,
    /// Width of the hidden states.
    pub hidden: usize,
}

/// Why a sample is not trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// No position is supervised, or none within the maximum length.
    NoSupervision,
    /// The draft reads the hidden states of image tokens, and these were not captured.
    NoImageStates,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSupervision => "no supervised position",
            Self::NoImageStates => "hidden states of image tokens were not captured",
        })
    }
}

/// A sample as a training step reads it. Position `s` combines the features of token `s` with the
/// embedding of token `s + 1`; its target is the hidden state of token `s + 1`. There is one
/// position fewer than there are tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct PreparedSample {
    /// Id of the sample, for messages.
    pub id: String,
    /// Embeddings `[positions, hidden]`.
    pub embeds: Array2<f32>,
    /// Features `[positions, features]`, with noise.
    pub features: Array2<f32>,
    /// Targets `[positions, hidden]`, without noise.
    pub target: Array2<f32>,
    /// For each position, whether its embedding is that of an image token.
    pub image_mask: Vec<bool>,
    /// For each position, whether its target belongs to an answer.
    pub answered: Vec<bool>,
    /// The answered positions that are in the loss, ascending.
    pub supervised: Vec<usize>,
}

/// A sample that can be trained on, or the reason why it cannot.
#[derive(Debug, Clone, PartialEq)]
pub enum Prepared {
    /// The prepared sample.
    Sample(Box<PreparedSample>),
    /// The reason why the sample is refused.
    Refused(Refusal),
}

/// Prepares sample number `index`.
///
/// # Errors
/// [`TrainError::SampleShape`] if the parts of the sample differ in length, or do not have the
/// width of the target's hidden states.
pub fn prepare(
    sample: &CapturedSample,
    index: usize,
    options: &PrepareOptions,
) -> Result<Prepared, TrainError> {
    let read = features(sample, options)?;
    check(sample, options.hidden)?;
    let len = sample.token_ids.len().min(options.max_len);
    let positions = len.saturating_sub(1);
    let shift = match options.loss_mask {
        LossMask::AsStored => 0,
        LossMask::ShiftedByOne => 1,
    };
    let answered: Vec<bool> = (0..positions)
        .map(|s| sample.loss_mask[s + shift])
        .collect();
    let is_listed = |s: usize| {
        // The token that the target of position `s` scores; unknown after the last position.
        let token = sample.token_ids.get(s + 2);
        match (&options.vocabulary, token) {
            (Some(vocabulary), Some(&token)) => vocabulary.lists(token),
            _ => true,
        }
    };
    let supervised: Vec<usize> = (0..positions)
        .filter(|&s| answered[s] && is_listed(s))
        .collect();
    if supervised.is_empty() {
        return Ok(Prepared::Refused(Refusal::NoSupervision));
    }
    if options.reads_image_states && lacks_image_states(sample, len) {
        return Ok(Prepared::Refused(Refusal::NoImageStates));
    }
    let rows = |of: &Array2<f32>, from: usize| of.slice(s![from..from + positions, ..]).to_owned();
    let mut features = rows(read, 0);
    if let (Some(noise), Some(values)) = (&options.noise, features.as_slice_mut()) {
        noise.add(values, index, len);
    }
    Ok(Prepared::Sample(Box::new(PreparedSample {
        id: sample.id.clone(),
        embeds: rows(&sample.input_embeds, 1),
        features,
        target: rows(&sample.hidden_states, 1),
        image_mask: sample.image_mask[1..len].to_vec(),
        answered,
        supervised,
    })))
}

/// Returns the features of a sample that the draft reads.
fn features<'s>(
    sample: &'s CapturedSample,
    options: &PrepareOptions,
) -> Result<&'s Array2<f32>, TrainError> {
    let Features::ResidualStates(states) = options.features else {
        return Ok(&sample.hidden_states);
    };
    let found = sample.residual_states.as_ref();
    let shape = found.map_or([0, 0], |states| [states.nrows(), states.ncols()]);
    for (quantity, found, expected) in [
        ("rows of residual states", shape[0], sample.token_ids.len()),
        (
            "width of residual states",
            shape[1],
            states * options.hidden,
        ),
    ] {
        if found != expected {
            return Err(wrong_shape(sample, quantity, found, expected));
        }
    }
    Ok(found.unwrap_or(&sample.hidden_states))
}

/// Returns whether an image token that is followed by another one has no hidden state.
fn lacks_image_states(sample: &CapturedSample, len: usize) -> bool {
    (1..len).any(|i| {
        sample.image_mask[i - 1]
            && sample.image_mask[i]
            && sample.hidden_states.row(i - 1).iter().all(|&v| v == 0.0)
    })
}

fn check(sample: &CapturedSample, hidden: usize) -> Result<(), TrainError> {
    let tokens = sample.token_ids.len();
    for (quantity, found, expected) in [
        ("rows of embeddings", sample.input_embeds.nrows(), tokens),
        (
            "rows of hidden states",
            sample.hidden_states.nrows(),
            tokens,
        ),
        ("length of the loss mask", sample.loss_mask.len(), tokens),
        ("length of the image mask", sample.image_mask.len(), tokens),
        ("width of embeddings", sample.input_embeds.ncols(), hidden),
        (
            "width of hidden states",
            sample.hidden_states.ncols(),
            hidden,
        ),
    ] {
        if found != expected {
            return Err(wrong_shape(sample, quantity, found, expected));
        }
    }
    Ok(())
}

fn wrong_shape(
    sample: &CapturedSample,
    quantity: &'static str,
    found: usize,
    expected: usize,
) -> TrainError {
    TrainError::SampleShape {
        id: sample.id.clone(),
        quantity,
        found,
        expected,
    }
}
